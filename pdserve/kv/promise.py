"""An asyncio future that another thread resolves."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Promise(Generic[T]):
    """`future` belongs to `loop`; `resolve` and `fail` may be called in any thread, and first wins.

    A failure that nobody waits for is not reported as forgotten: whoever fails a promise has
    already acted on the error.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[T] = loop.create_future()
        self._loop = loop

    def resolve(self, value: T) -> None:
        """Gives the future its result, unless it is done."""
        self._call(lambda: self.future.set_result(value))

    def fail(self, error: Exception) -> None:
        """Gives the future its exception, unless it is done."""

        def set_exception() -> None:
            self.future.set_exception(error)
            self.future.exception()

        self._call(set_exception)

    def _call(self, action: Callable[[], None]) -> None:
        def unless_done() -> None:
            if not self.future.done():
                action()

        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(unless_done)
