"""Links over gloo: what arrives, and what happens when the other end does not come or goes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from kv_pair import CONFIG

from pdserve.errors import TransferError
from pdserve.kv.gloo import GlooBackend
from pdserve.kv.store import PrefixStore, open_store, reach_store


@pytest.fixture
def workers():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def connect(workers, config):
    """Both ends of a link, and the store that they met at."""
    store = open_store(config)

    def end(rank):
        mine = PrefixStore("link", reach_store(config.host, store.port, config))
        return GlooBackend(config).connect(mine, rank)

    here, there = workers.map(end, (0, 1))
    return store, here, there


def test_two_transmissions_may_be_under_way(workers):
    _, here, there = connect(workers, CONFIG)
    sent = [torch.full((1000,), i, dtype=torch.uint8) for i in range(6)]
    received = [torch.zeros(1000, dtype=torch.uint8) for _ in sent]
    for i in range(0, 6, 2):
        sends = [here.send(sent[i]), here.send(sent[i + 1])]
        receives = [there.recv(received[i]), there.recv(received[i + 1])]
        for transmission in sends + receives:
            transmission.wait()
    assert torch.equal(torch.stack(received), torch.stack(sent))
    here.close()
    there.close()


def test_closing_one_end_wakes_the_other(workers):
    """The segment's timeout is longer than the test's. What has ended holds nothing open."""
    _, here, there = connect(workers, replace(CONFIG, segment_timeout_s=600))
    finished = [here.send(torch.ones(8)), there.recv(torch.zeros(8))]
    for transmission in finished:
        transmission.wait()
    finished.append(there.send(torch.ones(8)))  # unfinished, in fact: nobody receives it
    waiting, began = here.send(torch.ones(1 << 20)), threading.Event()

    def wait():
        began.set()
        waiting.wait()

    outcome = workers.submit(wait)
    began.wait(10)
    there.close()
    with pytest.raises(TransferError, match="gloo send failed"):
        outcome.result()
    here.close()


def test_a_peer_that_does_not_come_is_given_up():
    config = replace(CONFIG, connect_timeout_s=0.3)
    store = open_store(config)
    with pytest.raises(TransferError, match="no gloo link"):
        GlooBackend(config).connect(PrefixStore("link", store), 0)


def test_a_silent_peer_is_given_up(workers):
    _, here, there = connect(workers, replace(CONFIG, segment_timeout_s=0.2))
    with pytest.raises(TransferError, match="gloo recv failed"):
        here.recv(torch.zeros(8)).wait()
    here.close()
    there.close()


def test_a_store_that_is_not_there_is_given_up():
    config = replace(CONFIG, connect_timeout_s=0.3)
    port = open_store(config).port
    with pytest.raises(TransferError, match=f"no store at 127.0.0.1:{port}"):
        reach_store("127.0.0.1", port, config)


def test_a_store_listens_at_its_own_address_only():
    config = replace(CONFIG, host="127.0.0.2", connect_timeout_s=0.3)
    store = open_store(config)
    reach_store("127.0.0.2", store.port, config)
    with pytest.raises(TransferError):
        reach_store("127.0.0.1", store.port, config)


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(TransferError, match=r"no store at 192\.0\.2\.1"):
        open_store(replace(CONFIG, host="192.0.2.1"))
