"""The asyncio side of an engine: requests go in, each one's events come out."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from pdserve.engine.engine import Engine, EngineLoad, EngineRequest
from pdserve.engine.events import Admitted, Event
from pdserve.engine.thread import Command, EngineThread
from pdserve.errors import EngineError, InvalidRequestError, OverloadedError, UnavailableError
from pdserve.tasks import task_group

log = logging.getLogger(__name__)

OVERLOAD_RETRY_S = 1.0

# Returns once nothing touches the blocks of a request that has ended.
Settled = Callable[[], Coroutine[Any, Any, object]]

T = TypeVar("T")


class EventStream:
    """Events of one request, in order.

    It needs no bound of its own: a request yields at most one event a token, and its tokens are
    bounded by `max_tokens`.
    """

    def __init__(self) -> None:
        self.admitted = False
        self.sampled = False  # its first token: what it waited for is computed, or has landed
        self._events: asyncio.Queue[Event | UnavailableError] = asyncio.Queue()

    def put(self, event: Event | UnavailableError) -> None:
        """Appends an event; an error ends the stream."""
        self._events.put_nowait(event)

    async def next(self) -> Event:
        """The next event; raises the error that ended the stream."""
        return _event(await self._events.get())

    async def unless_ended(self, wait: Coroutine[Any, Any, T]) -> T:
        """The result of `wait`, while no event is expected; raises what ends the stream first."""
        async with task_group() as group:
            waiting = group.create_task(wait)
            watching = group.create_task(self.next())
            await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
            watching.cancel()
        return waiting.result()

    async def next_batch(self) -> list[Event]:
        """The next event and all that have piled up behind it."""
        events = [await self.next()]
        while not self._events.empty():
            item = self._events.get_nowait()
            if isinstance(item, UnavailableError):
                self.put(item)  # for the next call: what came before it still counts
                break
            events.append(item)
        return events


class EngineHost:
    """Owns the engine thread and routes its events to the requests that they belong to."""

    def __init__(self, engine: Engine, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._streams: dict[str, EventStream] = {}
        self._keys: set[str] = set()  # what the engine may still hold blocks for
        self._ended: Callable[[], UnavailableError] | None = None  # why none is taken any more
        self._settling: set[asyncio.Task[None]] = set()
        self._change = asyncio.Event()
        self._thread = EngineThread(engine, self._deliver, self._fail)
        self._thread.start()
        self.cache_log = engine.cache_log
        self.step_log = engine.step_log
        self.failure: asyncio.Future[BaseException] = self._loop.create_future()

    @property
    def requests(self) -> int:
        """Requests that have not ended."""
        return len(self._streams)

    @property
    def waiting(self) -> int:
        """Requests that have not been admitted."""
        return sum(1 for stream in self._streams.values() if not stream.admitted)

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
    def request(
        self, request: EngineRequest, settled: Settled | None = None
    ) -> Iterator[EventStream]:
        """Runs a request; when the context ends, the engine frees what it has of it.

        Blocks that a transfer may still touch are freed only once `settled()` has returned, which
        is awaited in a task of its own. Raises `OverloadedError` when too many wait,
        `InvalidRequestError` on a key that is not yet free again, and `UnavailableError` when the
        engine has ended.
        """
        if self._ended:
            raise self._ended()
        if request.key in self._keys:
            raise InvalidRequestError(f"request {request.key} is already running", field="ref")
        if self.waiting >= self._max_waiting:
            raise OverloadedError(
                f"{self.waiting} requests are waiting",
                limit=f"max_waiting={self._max_waiting}",
                retry_after_s=OVERLOAD_RETRY_S,
            )
        stream = self._streams[request.key] = EventStream()
        self._keys.add(request.key)
        self.submit(lambda engine: engine.add(request))
        self.notify()
        try:
            yield stream
        finally:
            del self._streams[request.key]
            self._release(request.key, settled)
            self.notify()

    @property
    def change(self) -> asyncio.Event:
        """Is set when requests come, are admitted, yield a first token, go or are freed next."""
        return self._change

    async def changed(self, timeout_s: float, change: asyncio.Event | None = None) -> None:
        """Returns when `change`, by default the next one, has happened, or after `timeout_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await (change or self._change).wait()

    def notify(self) -> None:
        """Wakes whoever waits for `changed`."""
        self._change.set()
        self._change = asyncio.Event()

    def end_requests(self, reason: str) -> None:
        """Ends every request with `UnavailableError`."""
        self._end_streams(partial(UnavailableError, reason))

    async def close(self, timeout_s: float) -> bool:
        """Ends requests and thread; False when a step did not end in time."""
        self._end(partial(UnavailableError, "the instance is shutting down"))
        if self._settling:
            _, unsettled = await asyncio.wait(list(self._settling), timeout=timeout_s)
            for task in unsettled:
                task.cancel()
        return await asyncio.to_thread(self._thread.stop, timeout_s)

    def _release(self, key: str, settled: Settled | None) -> None:
        self.submit(lambda engine: engine.remove(key, unsettled=settled is not None))
        if settled is None:
            self._free(key)
            return
        task = asyncio.create_task(self._settle(key, settled), name=f"settle {key}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, key: str, settled: Settled) -> None:
        try:
            await settled()
        except Exception:
            # Nobody can say when the blocks are safe: they stay quarantined, and it is told.
            log.exception("blocks stay quarantined", extra={"request": key})
            return
        self.submit(lambda engine: engine.settle(key))
        self._free(key)

    def _free(self, key: str) -> None:
        """Lets `key` be used again once the engine has let go of it and its last event is out."""

        def freed(_: Engine) -> None:
            self._loop.call_soon_threadsafe(self._freed, key)

        self.submit(freed)

    def _freed(self, key: str) -> None:
        self._keys.discard(key)
        self.notify()  # the engine's load shows it by now

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
            elif not stream.sampled:
                stream.sampled = True
                self.notify()
            stream.put(event)

    def _fail(self, error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self._die, error)

    def _die(self, error: BaseException) -> None:
        self._end(partial(EngineError, f"the engine failed: {error}"))
        if not self.failure.done():  # it is cancelled with a task that awaited it
            self.failure.set_result(error)

    def _end(self, error: Callable[[], UnavailableError]) -> None:
        self._ended = error
        self._end_streams(error)

    def _end_streams(self, error: Callable[[], UnavailableError]) -> None:
        for stream in self._streams.values():
            stream.put(error())


def _event(item: Event | UnavailableError) -> Event:
    if isinstance(item, UnavailableError):
        raise item
    return item
