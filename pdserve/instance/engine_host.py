"""The asyncio side of an engine: requests go in, each one's events come out."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from pdserve.engine.engine import Engine, EngineLoad, EngineRequest
from pdserve.engine.events import Admitted, Event
from pdserve.engine.thread import Command, EngineThread
from pdserve.errors import InvalidRequestError, OverloadedError, UnavailableError

OVERLOAD_RETRY_S = 1.0


class EventStream:
    """Events of one request, in order.

    It needs no bound of its own: a request yields at most one event a token, and its tokens are
    bounded by `max_tokens`.
    """

    def __init__(self) -> None:
        self.admitted = False
        self._events: asyncio.Queue[Event | UnavailableError] = asyncio.Queue()

    def put(self, event: Event | UnavailableError) -> None:
        """Appends an event; an error ends the stream."""
        self._events.put_nowait(event)

    async def next(self) -> Event:
        """The next event; raises the error that ended the stream."""
        return _event(await self._events.get())

    async def next_batch(self) -> list[Event]:
        """The next event and all that have piled up behind it."""
        events = [await self.next()]
        while not self._events.empty():
            events.append(_event(self._events.get_nowait()))
        return events


class EngineHost:
    """Owns the engine thread and routes its events to the requests that they belong to."""

    def __init__(self, engine: Engine, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._streams: dict[str, EventStream] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._change = asyncio.Event()
        self._thread = EngineThread(engine, self._deliver, self._fail)
        self._thread.start()
        self.failure: asyncio.Future[BaseException] = self._loop.create_future()

    @property
    def requests(self) -> int:
        """Requests that have not ended."""
        return len(self._streams)

    @property
    def settling(self) -> int:
        """Ended requests in whose blocks bytes may still move."""
        return len(self._settling)

    def load(self) -> EngineLoad:
        """The engine as it was after its latest step."""
        return self._thread.load()

    def step_age(self) -> float:
        """Seconds since the step in progress began; 0 between steps."""
        return self._thread.step_age()

    def submit(self, command: Command) -> None:
        """Runs `command` on the engine's thread."""
        self._thread.submit(command)

    @contextmanager
    def request(self, request: EngineRequest) -> Iterator[EventStream]:
        """Queues a request for as long as the context lasts; the caller then calls `release`.

        Raises `OverloadedError` when too many wait and `InvalidRequestError` on a key that is live.
        """
        if request.key in self._streams:
            raise InvalidRequestError(f"request {request.key} is already running", field="ref")
        waiting = sum(1 for stream in self._streams.values() if not stream.admitted)
        if waiting >= self._max_waiting:
            raise OverloadedError(
                f"{waiting} requests are waiting",
                limit=f"max_waiting={self._max_waiting}",
                retry_after_s=OVERLOAD_RETRY_S,
            )
        stream = self._streams[request.key] = EventStream()
        self.submit(lambda engine: engine.add(request))
        self.notify()
        try:
            yield stream
        finally:
            del self._streams[request.key]
            self.notify()

    def release(self, key: str, settled: Coroutine[Any, Any, None] | None = None) -> None:
        """Frees what the engine has of `key`, its blocks only once `settled` has completed."""
        if settled is None:
            self.submit(lambda engine: engine.remove(key))
            return
        self.submit(lambda engine: engine.remove(key, unsettled=True))
        task = asyncio.create_task(self._settle(key, settled), name=f"settle {key}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def changed(self, timeout_s: float, gap_s: float = 0.0) -> None:
        """Returns when requests came, went or were admitted, or after `timeout_s`.

        Never sooner than after `gap_s`, so that a burst of changes is seen as one.
        """
        change = self._change
        if gap_s:
            await asyncio.sleep(gap_s)
        try:
            async with asyncio.timeout(timeout_s - gap_s):
                await change.wait()
        except TimeoutError:
            return

    def notify(self) -> None:
        """Wakes whoever waits for `changed`."""
        self._change.set()
        self._change = asyncio.Event()

    def end_requests(self, reason: str) -> None:
        """Ends every request with `UnavailableError`."""
        for stream in self._streams.values():
            stream.put(UnavailableError(reason))

    async def close(self, timeout_s: float) -> bool:
        """Ends requests and thread; False when a step did not end in time."""
        self.end_requests("the instance is shutting down")
        if self._settling:
            await asyncio.wait(list(self._settling), timeout=timeout_s)
        return await asyncio.to_thread(self._thread.stop, timeout_s)

    async def _settle(self, key: str, settled: Coroutine[Any, Any, None]) -> None:
        await settled
        self.submit(lambda engine: engine.settle(key))

    def _deliver(self, events: list[Event]) -> None:
        self._loop.call_soon_threadsafe(self._dispatch, events)

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            stream = self._streams.get(event.key)
            if stream is None:
                continue  # cancelled while the step ran
            if isinstance(event, Admitted):
                stream.admitted = True
                self.notify()
            stream.put(event)

    def _fail(self, error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self._die, error)

    def _die(self, error: BaseException) -> None:
        self.failure.set_result(error)
        self.end_requests(f"the engine failed: {error}")


def _event(item: Event | UnavailableError) -> Event:
    if isinstance(item, UnavailableError):
        raise item
    return item
