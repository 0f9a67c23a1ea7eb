"""The requests that run now."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from pdserve.errors import InvalidRequestError, OverloadedError, UnavailableError


class RequestRegistry:
    """Bounds the requests that run, keeps their ids distinct, and closes the door for a drain."""

    def __init__(self, max_running: int) -> None:
        self._max_running = max_running
        self._running: set[str] = set()
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Number of requests that run."""
        return len(self._running)

    @contextmanager
    def enter(self, request_id: str) -> Iterator[None]:
        """The request runs as long as the context lasts.

        Raises `UnavailableError` while draining, `OverloadedError` when too many run, and
        `InvalidRequestError` when this id does already.
        """
        self._check(request_id)
        self._running.add(request_id)
        self._idle.clear()
        try:
            yield
        finally:
            self._running.discard(request_id)
            if not self._running:
                self._idle.set()

    def close(self) -> None:
        """Lets no further request in."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether no further request is let in."""
        return self._closed

    async def idle(self) -> None:
        """Returns when no request runs."""
        await self._idle.wait()

    def _check(self, request_id: str) -> None:
        if self._closed:
            raise UnavailableError("the router is draining; use another one")
        if len(self._running) >= self._max_running:
            raise OverloadedError(
                f"{self._max_running} requests run already (max_running)",
                limit=str(self._max_running),
                retry_after_s=1.0,
            )
        if request_id in self._running:
            raise InvalidRequestError(
                f"ref.request_id {request_id!r} belongs to a request that runs now",
                field="ref.request_id",
                limit="unique among running requests",
            )
