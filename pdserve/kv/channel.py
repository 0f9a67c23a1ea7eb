"""A channel: the link between one prefill rank and one decode rank, and the thread that runs it."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pdserve.errors import TransferError
from pdserve.kv.backend import Link
from pdserve.kv.config import TransferConfig
from pdserve.kv.promise import Promise

log = logging.getLogger(__name__)


class Job(Protocol):
    """One segment to send or to receive. All its methods are called in the channel's thread."""

    def begin(self, link: Link, seq: int) -> bool:
        """Starts transmission `seq`; False when it is not wanted any more, which leaves `seq` free.

        Raises `TransferError`, which ends the channel.
        """

    def end(self) -> None:
        """Waits for the transmission. Raises `TransferError`, which ends the channel."""

    def fail(self, error: TransferError) -> None:
        """The channel has ended; called instead of, or after, anything else."""


class Channel:
    """Runs jobs in order, two at a time: one moves while the other is gathered or scattered.

    Transmissions are numbered from 1, alike at both ends. The first error ends the channel; so do
    `close`, and `channel_idle_s` without use. It never recovers: its successor is another channel
    with a higher `attempt`. A thread stuck on a silent peer ends within `connect_timeout_s` and
    `segment_timeout_s`, but for one case: NCCL waits without a limit for a peer that falls silent
    after the two have met and before their communicator is there, and that cannot be interrupted.

    Made and used in one event loop.
    """

    def __init__(
        self, name: str, attempt: int, connect: Callable[[], Link], config: TransferConfig
    ) -> None:
        self.name = name
        self.attempt = attempt
        self._connect = connect
        self._config = config
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._error: TransferError | None = None
        self._users = 0
        self._ended = Promise[None](asyncio.get_running_loop())
        self._thread = threading.Thread(target=self._run, name=f"kv {name}", daemon=True)
        self._thread.start()

    @property
    def error(self) -> TransferError | None:
        """Why the channel has ended, or None while it lives."""
        return self._error

    @property
    def users(self) -> int:
        """Transfers that hold the channel."""
        return self._users

    def acquire(self) -> bool:
        """Keeps the channel from ending for idleness; False when it has already ended."""
        with self._changed:
            if self._error is not None:
                return False
            self._users += 1
            return True

    def release(self) -> None:
        """Undoes `acquire`."""
        with self._changed:
            self._users -= 1
            self._changed.notify()

    def submit(self, job: Job) -> None:
        """Queues `job`. Raises `TransferError` when the channel has ended or its queue is full."""
        with self._changed:
            if self._error is not None:
                raise TransferError(f"channel {self.name} has ended: {self._error}")
            if len(self._jobs) >= self._config.max_queue:
                raise TransferError(
                    f"channel {self.name} has {len(self._jobs)} segments waiting",
                    field="max_queue",
                    limit=str(self._config.max_queue),
                )
            self._jobs.append(job)
            self._changed.notify()

    def close(self, reason: str) -> None:
        """Ends the channel, if it has not ended. Does not wait for its thread."""
        self._end(TransferError(f"channel {self.name}: {reason}"))

    async def ended(self) -> None:
        """Returns when the thread has nothing more to do."""
        await asyncio.shield(self._ended.future)

    def when_ended(self, action: Callable[[], None]) -> None:
        """Has `action` called in the event loop when the thread has nothing more to do."""
        self._ended.future.add_done_callback(lambda _: action())

    def _end(self, error: TransferError) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify()

    def _run(self) -> None:
        running: deque[Job] = deque()
        try:
            link = self._connect()
            try:
                self._pump(link, running)
            finally:
                link.close()
        except TransferError as error:
            self._end(error)
        except Exception as error:
            log.exception("channel %s failed", self.name)
            self._end(TransferError(f"channel {self.name} failed: {error!r}"))
        finally:
            self._abandon(running)

    def _pump(self, link: Link, running: deque[Job]) -> None:
        """Runs jobs until the channel ends, which raises why; `running`: those under way."""
        begun = 0
        while True:
            job = self._next(wait=not running)
            if job is not None:
                running.append(job)
                if job.begin(link, begun + 1):
                    begun += 1
                else:
                    running.pop()
            if running and (job is None or len(running) == 2):
                running[0].end()
                running.popleft()

    def _next(self, *, wait: bool) -> Job | None:
        """Returns the next job; None when there is none now and it should not be waited for."""
        with self._changed:
            while self._error is None and not self._jobs and wait:
                changed = self._changed.wait(self._config.channel_idle_s)
                if not changed and not self._jobs and not self._users:
                    self._error = TransferError(f"channel {self.name} was idle")
            if self._error is not None:
                raise self._error
            return self._jobs.popleft() if self._jobs else None

    def _abandon(self, running: deque[Job]) -> None:
        with self._changed:
            waiting, self._jobs = self._jobs, deque()
            error = self._error or TransferError(f"channel {self.name} has ended")
            self._error = error
        for job in (*running, *waiting):
            job.fail(error)
        self._ended.resolve(None)
