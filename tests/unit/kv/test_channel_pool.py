"""Channels are kept, bounded, replaced under the next number, and ended with their instances."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
from kv_pair import CONFIG
from loopback import Loopback

from pdserve.errors import TransferError
from pdserve.kv.channel_pool import ChannelKey, ChannelPool


def key(decode: str, prefill: str = "P") -> ChannelKey:
    return ChannelKey(prefill, decode, 0, 0)


def connect(attempt):
    return Loopback()


async def test_a_channel_is_used_again_until_it_fails():
    pool = ChannelPool(CONFIG)
    with pool.latest(key("D"), 0, connect) as first:
        pass
    with pool.latest(key("D"), first.attempt, connect) as again:
        assert again is first
    first.close("broken")
    with pool.latest(key("D"), 0, connect) as second:
        assert second.attempt == first.attempt + 1
    await pool.close()
    assert len(pool) == 0


async def test_decode_may_ask_for_a_newer_channel():
    pool = ChannelPool(CONFIG)
    with pool.latest(key("D"), 0, connect) as first, pool.latest(key("D"), 9, connect) as second:
        assert (first.error is not None, second.attempt) == (True, 9)
    await pool.close()


async def test_decode_follows_the_numbers_of_prefill():
    pool = ChannelPool(CONFIG)
    assert pool.lowest_usable(key("D")) == 1
    with pool.exact(key("D"), 3, connect) as third:
        assert pool.lowest_usable(key("D")) == 3
        with pool.exact(key("D"), 4, connect):
            assert third.error is not None
    with (
        pytest.raises(TransferError, match="attempt 3 to P has ended"),
        pool.exact(key("D"), 3, connect),
    ):
        pass
    await pool.close()
    assert len(pool) == 0


async def test_the_channel_unused_for_longest_gives_way():
    pool = ChannelPool(replace(CONFIG, max_channels=2))
    with pool.exact(key("a"), 1, connect) as a, pool.exact(key("b"), 1, connect) as b:
        pass
    with pool.exact(key("a"), 1, connect):
        pass
    with pool.exact(key("c"), 1, connect):
        assert (a.error is None, b.error is None) == (True, False)
    assert pool.lowest_usable(key("b")) == 2
    await pool.close()


async def test_channels_in_use_do_not_give_way():
    pool = ChannelPool(replace(CONFIG, max_channels=2))
    with ExitStack() as held:
        for name in "ab":
            held.enter_context(pool.exact(key(name), 1, connect))
        with pytest.raises(TransferError, match="all 2 channels are in use"):
            held.enter_context(pool.exact(key("c"), 1, connect))
    await pool.close()
