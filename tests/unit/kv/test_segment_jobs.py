"""Staging buffers belong to the link's stream: memory of another stream may still be written to."""

from contextlib import contextmanager

from kv_pair import CPU, LAYOUT
from loopback import Loopback

from pdserve.kv.backend import Staging
from pdserve.kv.gate import Gate
from pdserve.kv.layout import rank_part
from pdserve.kv.pool import KvPool
from pdserve.kv.segment import PoolShard, Segment
from pdserve.kv.segment_receive import SegmentReceive
from pdserve.kv.segment_send import SegmentSend
from pdserve.rpc.v1 import prefill_pb2

SEGMENT = Segment(range(1), range(LAYOUT.kv_heads), range(4))
SIZE = SEGMENT.size(LAYOUT.cell_bytes)


class StreamedLink(Loopback):
    """Notes for every staging buffer whether it was asked for in the link's stream."""

    def __init__(self):
        super().__init__()
        self.streaming = False
        self.asked_in_stream = []
        self.staging = NotedStaging(self)

    @contextmanager
    def stream(self):
        self.streaming = True
        try:
            yield
        finally:
            self.streaming = False


class NotedStaging(Staging):
    def __init__(self, link):
        super().__init__(CPU)
        self._link = link

    def buffer(self, seq, size):
        self._link.asked_in_stream.append(self._link.streaming)
        return super().buffer(seq, size)


def shard():
    return PoolShard(KvPool(LAYOUT, 4, CPU), rank_part(LAYOUT, 0))


async def test_a_send_gets_its_buffer_in_the_link_s_stream():
    link = StreamedLink()
    assert SegmentSend(SEGMENT, (), (0,), shard(), Gate()).begin(link, 1)
    assert link.asked_in_stream == [True]


async def test_a_receive_gets_its_buffer_in_the_link_s_stream():
    link = StreamedLink()
    header = prefill_pb2.SegmentHeader(channel_seq=1, bytes=SIZE)
    assert SegmentReceive(SEGMENT, header, (0,), shard(), Gate()).begin(link, 1)
    assert link.asked_in_stream == [True]
