"""The requests that are here now."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from pdserve.errors import InvalidRequestError, OverloadedError, UnavailableError

# Requests that are read, besides those that run or wait: reading takes a moment.
READING = 64
_RETRY_AFTER_S = 1.0


class RequestRegistry:
    """Bounds the requests that are here, keeps the ids of each client's distinct, and closes for
    a drain.

    There may be `limit` that run or wait, and a few that have not been read yet.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit + READING
        self._running: set[tuple[str, str]] = set()
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Number of requests that are here."""
        return len(self._running)

    @contextmanager
    def enter(self, client: str, request_id: str) -> Iterator[None]:
        """The request of `client` is here as long as the context lasts.

        Raises `UnavailableError` while draining, `OverloadedError` when too many are here, and
        `InvalidRequestError` when one of this client's has the same id; nobody learns of another's.
        """
        key = client, request_id
        self._check(key)
        self._running.add(key)
        self._idle.clear()
        try:
            yield
        finally:
            self._running.discard(key)
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
        """Returns when no request is here."""
        await self._idle.wait()

    def _check(self, key: tuple[str, str]) -> None:
        if self._closed:
            raise UnavailableError("the router is draining; use another one")
        if key in self._running:
            raise InvalidRequestError(
                f"ref.request_id {key[1]!r} belongs to a request that runs now",
                field="ref.request_id",
                limit="unique among the client's running requests",
            )
        if len(self._running) >= self._limit:
            raise OverloadedError(
                f"{self._limit} requests are here already, to be read, to wait or to run "
                "(max_running, max_queued)",
                field="max_queued",
                limit=str(self._limit),
                retry_after_s=_RETRY_AFTER_S,
            )
