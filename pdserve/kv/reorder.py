"""Brings receives into the order of the sends."""

import asyncio

from pdserve.errors import TransferError
from pdserve.kv.channel import Channel, Job


class Reorder:
    """Hands the jobs of all transfers of a channel to it in channel-sequence order.

    Each transfer learns of its segments on a stream of its own, so they may be told out of order.
    A number that stays missing while later ones wait ends the channel after `timeout_s`.
    """

    def __init__(self, channel: Channel, timeout_s: float) -> None:
        self._channel = channel
        self._timeout_s = timeout_s
        self._next = 1
        self._early: dict[int, Job] = {}
        self._deadline: asyncio.TimerHandle | None = None
        channel.when_ended(self._fail_early)

    def post(self, seq: int, job: Job) -> None:
        """Submits `job` as transmission `seq` when its turn comes; fails it if the channel ends.

        Raises `TransferError` for a number that was there before.
        """
        if seq < self._next or seq in self._early:
            raise TransferError(f"channel {self._channel.name}: segment {seq} was announced twice")
        self._early[seq] = job
        if seq == self._next:
            self._submit()
            self._watch()
        elif self._deadline is None:
            self._watch()

    def _submit(self) -> None:
        while self._next in self._early:
            job = self._early.pop(self._next)
            self._next += 1
            try:
                self._channel.submit(job)
            except TransferError as error:
                self._channel.close(str(error))  # what comes next would come out of order
                job.fail(error)

    def _watch(self) -> None:
        """Gives the segment that is missing now the whole time to be announced."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._early:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._timeout_s, self._give_up)

    def _give_up(self) -> None:
        self._channel.close(f"segment {self._next} was never announced")
        self._fail_early()

    def _fail_early(self) -> None:
        early, self._early = self._early, {}
        for job in early.values():
            job.fail(
                TransferError(f"channel {self._channel.name}: segment {self._next} is missing")
            )
        self._watch()
