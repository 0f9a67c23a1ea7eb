"""A segment on its way out."""

import asyncio
from collections.abc import Sequence

from pdserve.errors import TransferError
from pdserve.kv.backend import Link, Transmission
from pdserve.kv.digest import digest
from pdserve.kv.gate import Gate
from pdserve.kv.promise import Promise
from pdserve.kv.segment import PoolShard, Segment
from pdserve.rpc.v1 import prefill_pb2


class SegmentSend:
    """Gathers one segment, announces it, and sends it."""

    def __init__(
        self,
        segment: Segment,
        marks: Sequence[object],
        blocks: Sequence[int],
        shard: PoolShard,
        gate: Gate,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.segment = segment
        # None when the transfer was stopped before this segment's turn came.
        self.announced = Promise[prefill_pb2.SegmentHeader | None](loop)
        self.sent = Promise[None](loop)
        self._marks = marks
        self._blocks = blocks
        self._shard = shard
        self._size = segment.size(shard.pool.layout.cell_bytes)
        self._gate = gate
        self._transmission: Transmission | None = None

    def begin(self, link: Link, seq: int) -> bool:
        """See `Job.begin`."""
        with self._gate.passage() as admitted, link.stream():
            if not admitted:
                self.announced.resolve(None)
                self.sent.resolve(None)
                return False
            data = link.staging.buffer(seq, self._size)
            for mark in self._marks:
                link.wait_for(mark)
            self._shard.gather(self.segment, self._blocks, data)
            checksum = digest(data)  # on a GPU, this waits for the gather
        self.announced.resolve(self._header(seq, checksum))
        self._transmission = link.send(data)
        return True

    def end(self) -> None:
        """See `Job.end`."""
        assert self._transmission is not None
        self._transmission.wait()
        self.sent.resolve(None)

    def fail(self, error: TransferError) -> None:
        """See `Job.fail`."""
        self.announced.fail(error)
        self.sent.fail(error)

    def _header(self, seq: int, checksum: int) -> prefill_pb2.SegmentHeader:
        return prefill_pb2.SegmentHeader(
            channel_seq=seq,
            layer_begin=self.segment.layers.start,
            layer_end=self.segment.layers.stop,
            token_begin=self.segment.tokens.start,
            token_end=self.segment.tokens.stop,
            head_begin=self.segment.heads.start,
            head_end=self.segment.heads.stop,
            bytes=self._size,
            digest=checksum,
        )
