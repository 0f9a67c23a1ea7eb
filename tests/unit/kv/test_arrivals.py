"""How long a pull took, and how long of that the link was in use."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.errors import TransferError
from pdserve.kv.arrivals import Admission, Arrivals
from pdserve.kv.layout import KvPart
from pdserve.rpc.v1 import prefill_pb2

CELL = 8


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def a_header(begin, end, *, size=None):
    """The segment of these tokens of the only layer and head."""
    return prefill_pb2.SegmentHeader(
        layer_end=1,
        head_end=1,
        token_begin=begin,
        token_end=end,
        bytes=(end - begin) * CELL if size is None else size,
    )


def arrivals(tokens, clock):
    part = KvPart(layers=range(1), heads=range(1))
    return Arrivals(part, Admission((), 0, tokens), CELL, clock)


def complete(tokens):
    return prefill_pb2.PullComplete(tokens=tokens)


def test_the_link_is_idle_while_the_transfer_waits_for_the_computation():
    clock = Clock()
    pull = arrivals(8, clock)
    clock.now += 1.0
    pull.announce(a_header(0, 4))
    clock.now += 0.25
    pull.land(32)
    clock.now += 5.0  # the next tokens are being computed
    pull.announce(a_header(4, 8))
    clock.now += 0.5
    pull.land(32)
    result = pull.result(complete(8))
    assert (result.wait_s, result.transfer_s, result.link_s) == (1.0, 5.75, 0.75)
    assert result.bytes == 64


def test_a_pull_of_nothing_uses_no_link():
    result = arrivals(0, Clock()).result(complete(0))
    assert (result.bytes, result.transfer_s, result.link_s) == (0, 0.0, 0.0)


def test_a_segment_that_is_refused_was_never_on_its_way():
    clock = Clock()
    pull = arrivals(4, clock)
    with pytest.raises(TransferError):
        pull.announce(a_header(0, 4, size=1))
    clock.now += 3.0
    pull.announce(a_header(0, 4))
    clock.now += 1.0
    pull.land(32)
    assert pull.result(complete(4)).link_s == 1.0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30))
def test_link_time_is_the_union_of_what_was_on_its_way(steps):
    clock = Clock()
    announced, landed, events = 0, 0, []
    pull = arrivals(30, clock)
    for announce, pause in steps:
        clock.now += pause
        if announce:
            pull.announce(a_header(announced, announced + 1))
            announced += 1
        elif landed < announced:
            pull.land(CELL)
            landed += 1
        events.append((clock.now, announced - landed))
    while landed < announced:
        clock.now += 1
        pull.land(CELL)
        landed += 1
        events.append((clock.now, announced - landed))
    if announced < 30:
        pull.announce(a_header(announced, 30))
        pull.land(CELL * (30 - announced))
    busy = sum(end - begin for (begin, under_way), (end, _) in pairwise(events) if under_way)
    result = pull.result(complete(30))
    assert result.link_s == busy
    assert result.link_s <= result.transfer_s
