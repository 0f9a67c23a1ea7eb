"""The store where channels meet does not grow with them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from kv_pair import CONFIG, admitted, pair, until

from pdserve.errors import TransferError
from pdserve.kv.store import PrefixStore, forget, meet, open_store, reach_store


def test_what_stands_under_a_prefix_is_deleted_and_nothing_else():
    server = open_store(CONFIG)
    store = reach_store(CONFIG.host, server.port, CONFIG)
    for name in ("P/D/0-0/1/a", "P/D/0-0/2/a", "P/D/0-0/3/a", "P/D/0-0/31/a", "P/D/0-01/1/a"):
        store.set(name, "x")
    forget(store, "P/D/0-0", keep="P/D/0-0/3")
    assert sorted(store.list_keys()) == ["P/D/0-0/3/a", "P/D/0-01/1/a"]


async def test_ended_channels_leave_nothing():
    ports, keys = [], []
    async with pair(config=replace(CONFIG, channel_idle_s=0.01)) as p:

        async def call(requests):
            async for response in p.call(requests):
                if response.WhichOneof("response") == "accepted":
                    ports.append(response.accepted.store_port)
                yield response

        for n in range(3):
            p.offer(f"t{n}", range(8), 20)
            await p.pull(f"t{n}", admitted(range(8), 0, 20), call)
            await until(lambda: not p.receiver.channels and not p.sender.counts.channels)
            keys.append(reach_store(CONFIG.host, ports[-1], CONFIG).num_keys())
    assert keys[0] > 0
    assert keys == keys[:1] * 3


def test_two_ranks_meet():
    server = open_store(CONFIG)

    def come(rank):
        meet(PrefixStore("here", reach_store(CONFIG.host, server.port, CONFIG)), rank)

    with ThreadPoolExecutor(2) as executor:
        list(executor.map(come, (0, 1)))


def test_a_rank_that_does_not_come_is_not_waited_for_longer_than_the_timeout():
    server = open_store(CONFIG)
    store = PrefixStore("here", reach_store(CONFIG.host, server.port, CONFIG))
    store.set_timeout(timedelta(seconds=0.1))
    with pytest.raises(TransferError, match="rank 1 did not come"):
        meet(store, 0)
