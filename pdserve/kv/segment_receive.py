"""A segment on its way in."""

import asyncio
from collections.abc import Sequence

import torch

from pdserve.errors import TransferError
from pdserve.kv.backend import Link, Transmission
from pdserve.kv.digest import digest
from pdserve.kv.gate import Gate
from pdserve.kv.promise import Promise
from pdserve.kv.segment import PoolShard, Segment
from pdserve.rpc.v1 import prefill_pb2


class SegmentReceive:
    """Receives one announced segment, checks it, and scatters it into the sequence's blocks.

    Once the gate is shut the segment is still received, since the channel needs it out of the way,
    and thrown away.
    """

    def __init__(
        self,
        segment: Segment,
        header: prefill_pb2.SegmentHeader,
        blocks: Sequence[int],
        shard: PoolShard,
        gate: Gate,
    ) -> None:
        self.header = header
        self.landed = Promise[None](asyncio.get_running_loop())
        self._segment = segment
        self._blocks = blocks
        self._shard = shard
        self._gate = gate
        # Known once the receive has begun.
        self._link: Link | None = None
        self._data = torch.empty(0)
        self._transmission: Transmission | None = None

    def begin(self, link: Link, seq: int) -> bool:
        """See `Job.begin`."""
        if seq != self.header.channel_seq:
            raise TransferError(f"segment {self.header.channel_seq} came as number {seq}")
        self._link = link
        with link.stream():
            self._data = link.staging.buffer(seq, self.header.bytes)
        self._transmission = link.recv(self._data)
        return True

    def end(self) -> None:
        """See `Job.end`."""
        assert self._link is not None
        assert self._transmission is not None
        self._transmission.wait()
        with self._gate.passage() as admitted, self._link.stream():
            if admitted:
                self._check(digest(self._data))
                self._shard.scatter(self._segment, self._blocks, self._data)
                self._link.synchronize()
        self.landed.resolve(None)

    def fail(self, error: TransferError) -> None:
        """See `Job.fail`."""
        self.landed.fail(error)

    def _check(self, actual: int) -> None:
        if actual != self.header.digest:
            raise TransferError(
                f"segment {self.header.channel_seq} was damaged: its digest is {actual:#x}, "
                f"announced as {self.header.digest:#x}"
            )
