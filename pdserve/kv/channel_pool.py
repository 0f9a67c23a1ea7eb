"""The channels of one rank."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pdserve.errors import TransferError
from pdserve.kv.backend import Link
from pdserve.kv.channel import Channel
from pdserve.kv.config import TransferConfig

# Makes the link of the channel with the given attempt number; called in the channel's thread.
Connect = Callable[[int], Link]


@dataclass(frozen=True, slots=True)
class ChannelKey:
    """The two ranks, in the two lives of their instances, that a channel joins."""

    prefill_incarnation: str
    decode_incarnation: str
    prefill_rank: int
    decode_rank: int

    @property
    def prefix(self) -> str:
        """What the store prefixes of all attempts begin with."""
        ranks = f"{self.prefill_rank}-{self.decode_rank}"
        return f"{self.prefill_incarnation}/{self.decode_incarnation}/{ranks}"

    def meeting(self, attempt: int) -> str:
        """The store prefix under which both ends of a channel meet."""
        return f"{self.prefix}/{attempt}"


class ChannelPool:
    """Keeps channels warm, at most `max_channels`; the one unused for longest gives way.

    Those with an instance that is gone end by their own idleness, or at their next use.

    Prefill numbers the attempts (`latest`); decode follows (`exact`), and says from which number on
    an attempt is of use to it (`lowest_usable`).
    """

    def __init__(self, config: TransferConfig) -> None:
        self._config = config
        self._channels: OrderedDict[ChannelKey, Channel] = OrderedDict()
        self._ending: dict[Channel, asyncio.Task[None]] = {}
        self._last_attempt = 0
        # Attempts that ended here and were dropped. Losing an entry costs a failed connection.
        self._spent: OrderedDict[ChannelKey, int] = OrderedDict()

    def __len__(self) -> int:
        """Channels whose threads run, those that are ending included."""
        alive = sum(channel.error is None for channel in self._channels.values())
        return alive + len(self._ending)

    @contextmanager
    def latest(self, key: ChannelKey, at_least: int, connect: Connect) -> Iterator[Channel]:
        """Yields the living channel with an attempt number from `at_least`, or a new one."""
        channel = self._channels.get(key)
        if channel is None or channel.attempt < at_least or not channel.acquire():
            self._last_attempt = max(self._last_attempt + 1, at_least)
            channel = self._replace(key, self._last_attempt, connect)
        with self._using(key, channel):
            yield channel

    @contextmanager
    def exact(self, key: ChannelKey, attempt: int, connect: Connect) -> Iterator[Channel]:
        """Yields the channel with this attempt number, made if it is new.

        Raises `TransferError` when that channel has ended or has been replaced.
        """
        if attempt < self.lowest_usable(key):
            raise TransferError(f"channel attempt {attempt} to {key.prefill_incarnation} has ended")
        channel = self._channels.get(key)
        if channel is None or channel.attempt != attempt or not channel.acquire():
            channel = self._replace(key, attempt, connect)
        with self._using(key, channel):
            yield channel

    def lowest_usable(self, key: ChannelKey) -> int:
        """The lowest attempt number that has not ended here."""
        channel = self._channels.get(key)
        if channel is None:
            return self._spent.get(key, 0) + 1
        return channel.attempt + (channel.error is not None)

    async def close(self) -> None:
        """Ends every channel and waits for their threads, as long as one may be stuck."""
        for key in [*self._channels]:
            self._drop(key, "closed")
        if not self._ending:
            return
        longest = max(self._config.segment_timeout_s, self._config.connect_timeout_s)
        _, stuck = await asyncio.wait(self._ending.values(), timeout=2 * longest)
        for task in stuck:
            task.cancel()

    def _replace(self, key: ChannelKey, attempt: int, connect: Connect) -> Channel:
        self._drop(key, f"replaced by attempt {attempt}")
        if len(self._channels) >= self._config.max_channels:
            self._evict()
        channel = Channel(key.meeting(attempt), attempt, lambda: connect(attempt), self._config)
        channel.acquire()
        self._channels[key] = channel
        return channel

    def _evict(self) -> None:
        for key, channel in self._channels.items():
            if channel.error is not None or not channel.users:
                self._drop(key, "gave way to another")
                return
        raise TransferError(
            f"all {self._config.max_channels} channels are in use",
            field="max_channels",
            limit=str(self._config.max_channels),
        )

    def _drop(self, key: ChannelKey, reason: str) -> None:
        channel = self._channels.pop(key, None)
        if channel is None:
            return
        self._spent[key] = channel.attempt
        if len(self._spent) > 4 * self._config.max_channels:
            self._spent.popitem(last=False)
        channel.close(reason)
        self._ending[channel] = asyncio.create_task(self._see_off(channel))

    async def _see_off(self, channel: Channel) -> None:
        try:
            await channel.ended()
        finally:
            del self._ending[channel]

    @contextmanager
    def _using(self, key: ChannelKey, channel: Channel) -> Iterator[None]:
        """`channel` has been acquired."""
        if self._channels.get(key) is channel:
            self._channels.move_to_end(key)
        try:
            yield
        finally:
            channel.release()
