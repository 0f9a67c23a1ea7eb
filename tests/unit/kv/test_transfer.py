"""KV arrives bit for bit, whatever the layouts, and whatever happens to other transfers."""

import asyncio
import random
from dataclasses import replace

import pytest
import torch
from kv_pair import BLOCKS, CONFIG, CPU, FIRST_TOKEN, LAYOUT, admitted, kv, pair, request_ref, until

from pdserve.errors import (
    IncompatibleLayoutError,
    InvalidRequestError,
    TransferError,
)
from pdserve.kv.backend import make_backend
from pdserve.kv.layout import pull_plan, rank_part
from pdserve.kv.offer import Outcome
from pdserve.rpc.v1 import prefill_pb2, types_pb2

TOKENS = 50


def blocks_for(tokens: int, block_size: int, rng: random.Random) -> list[int]:
    return rng.sample(range(BLOCKS), -(-tokens // block_size))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("source_size", "target_size"), [(4, 4), (4, 16), (16, 3), (1, 64)])
async def test_contents_arrive_bit_for_bit(source_size, target_size, dtype):
    rng = random.Random(source_size)
    prefill = replace(LAYOUT, block_size=source_size, dtype=dtype)
    decode = replace(LAYOUT, block_size=target_size, dtype=dtype)
    async with pair(prefill, decode) as p:
        here = blocks_for(TOKENS, source_size, rng)
        there = blocks_for(TOKENS, target_size, rng)
        offer = p.offer("t", here, TOKENS)
        result = await p.pull("t", admitted(there, 0, TOKENS))
        assert torch.equal(kv(p.target, there, 0, TOKENS), kv(p.source, here, 0, TOKENS))
        assert result.first_token == FIRST_TOKEN
        assert result.bytes == TOKENS * prefill.token_bytes
        end = await offer.ended()
        assert (end.outcome, end.bytes) == (Outcome.PULLED, result.bytes)


async def test_tokens_that_decode_has_are_not_sent():
    async with pair() as p:
        before = kv(p.target, range(20), 0, 33)
        p.offer("t", range(20), TOKENS)
        result = await p.pull("t", admitted(range(20), 33, TOKENS))
        assert result.bytes == (TOKENS - 33) * LAYOUT.token_bytes
        assert torch.equal(kv(p.target, range(20), 0, 33), before)
        assert torch.equal(kv(p.target, range(20), 33, TOKENS), kv(p.source, range(20), 33, TOKENS))


async def test_a_pull_of_nothing_still_ends_the_offer():
    async with pair() as p:
        offer = p.offer("t", range(20), TOKENS)
        result = await p.pull("t", admitted(range(20), TOKENS, TOKENS))
        assert (result.bytes, result.first_token) == (0, FIRST_TOKEN)
        assert (await offer.ended()).outcome is Outcome.PULLED


async def test_layer_groups_stream_while_prefill_computes():
    groups, chunks = [(0, 2), (2, 5), (5, 6)], [(10, 24), (24, TOKENS)]
    layer_bytes = LAYOUT.token_bytes // LAYOUT.layers
    async with pair() as p:
        blocks = list(range(20))
        landed = [0]

        async def arrival(due):
            await until(lambda: landed[-1] == due)

        offer = p.offer("t", blocks, TOKENS, cached=10)
        pull = asyncio.create_task(
            p.pull("t", admitted(blocks, 0, TOKENS), on_progress=landed.append)
        )
        due = 10 * LAYOUT.token_bytes
        await arrival(due)
        for chunk in chunks:
            for begin, end in groups:
                written = p.source.slots(blocks, *chunk)
                p.source.data.flatten(2, 3)[begin:end, :, written] = 1.5 * begin + chunk[0]
                offer.advance(begin, end, chunk[1], None)
                due += (end - begin) * (chunk[1] - chunk[0]) * layer_bytes
                await arrival(due)
        offer.complete(FIRST_TOKEN)
        result = await pull
        assert result.bytes == TOKENS * LAYOUT.token_bytes
        assert torch.equal(kv(p.target, blocks, 0, TOKENS), kv(p.source, blocks, 0, TOKENS))


async def test_concurrent_transfers_share_one_channel():
    async with pair() as p:
        names = [f"t{i}" for i in range(8)]
        tables = {name: [8 * i + j for j in range(8)] for i, name in enumerate(names)}
        for name in names:
            p.offer(name, tables[name], 30)
        shifted = {name: tables[names[i - 3]] for i, name in enumerate(names)}
        await asyncio.gather(*(p.pull(n, admitted(shifted[n], 0, 30)) for n in names))
        for name in names:
            assert torch.equal(
                kv(p.target, shifted[name], 0, 30), kv(p.source, tables[name], 0, 30)
            )
        assert (p.sender.counts.channels, p.receiver.channels) == (1, 1)


@pytest.mark.parametrize(
    ("prefill", "decode"),
    [({"tp": 2, "pp": 2}, {"tp": 1}), ({"tp": 1}, {"tp": 4, "pp": 3}), ({"tp": 8}, {"tp": 2})],
)
async def test_every_pair_of_ranks_moves_its_part(prefill, decode):
    prefill, decode = replace(LAYOUT, **prefill), replace(LAYOUT, **decode, block_size=8)
    for rank in range(decode.ranks):
        held = rank_part(decode, rank)
        for source_rank, part in pull_plan(prefill, decode, rank).items():
            async with pair(prefill, decode, (source_rank, rank)) as p:
                ours = rank_part(prefill, source_rank)
                p.offer("t", range(20), TOKENS)
                before = kv(p.target, range(20), 0, TOKENS)
                await p.pull("t", admitted(range(20), 0, TOKENS))
                after = kv(p.target, range(20), 0, TOKENS)
                at = cut(part, held)
                assert torch.equal(after[at], kv(p.source, range(20), 0, TOKENS)[cut(part, ours)])
                after[at] = before[at]
                assert torch.equal(after, before)
                if pullers_of(prefill, decode, source_rank) > 1:
                    p.sender.withdraw("t")


def cut(part, held):
    """The index of `part` in [layers, 2, tokens, kv_heads, head_dim] of `held`."""
    layers = slice(part.layers.start - held.layers.start, part.layers.stop - held.layers.start)
    heads = slice(part.heads.start - held.heads.start, part.heads.stop - held.heads.start)
    return layers, slice(None), slice(None), heads


def pullers_of(prefill, decode, source_rank):
    return sum(source_rank in pull_plan(prefill, decode, r) for r in range(decode.ranks))


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "other"},
        {"dtype": "bfloat16"},
        {"layers": 5},
        {"kv_heads": 2},
        {"head_dim": 16},
    ],
)
async def test_layouts_that_do_not_match_are_refused(change):
    (name, value), *_ = change.items()
    async with pair(decode=replace(LAYOUT, **change)) as p:
        p.offer("t", range(20), TOKENS)
        with pytest.raises(IncompatibleLayoutError, match=name) as caught:
            await p.pull("t", admitted(range(20), 0, TOKENS))
        assert repr(getattr(LAYOUT, name)) in str(caught.value)
        assert repr(value) in str(caught.value)


async def test_another_life_of_the_instance_is_not_pulled_from():
    async with pair() as p:
        p.offer("t", range(20), TOKENS)
        with pytest.raises(TransferError, match="meant for incarnation 'older'"):
            await p.receiver.pull(
                "t",
                request_ref("t", "older"),
                types_pb2.KvSource(address="here", incarnation="older", transfer_id="t"),
                p.call,
                admitted(range(20), 0, TOKENS),
            )


async def test_kv_of_another_length_is_not_taken():
    async with pair() as p:
        p.offer("t", range(20), TOKENS)
        with pytest.raises(TransferError):
            await p.pull("t", admitted(range(20), 0, TOKENS + 1))
        with pytest.raises(TransferError):
            await p.pull("t", admitted(range(20), 0, TOKENS - 1))


async def test_more_tokens_than_there_are_cannot_be_skipped():
    async with pair() as p:
        p.offer("t", range(20), TOKENS)
        with pytest.raises(InvalidRequestError, match=f"from_token is 51; .* {TOKENS} tokens"):
            await p.pull("t", admitted(range(20), TOKENS + 1, TOKENS))


async def test_a_call_must_open_with_a_transfer():
    async with pair() as p:

        async def requests():
            yield prefill_pb2.PullKvRequest(begin=prefill_pb2.PullBegin())

        with pytest.raises(InvalidRequestError, match="the first message must be open"):
            await p.sender.serve(requests(), lambda _: asyncio.sleep(0))


class Damaging:
    """A backend whose first `times` transmissions change a byte on the way."""

    def __init__(self, times: int) -> None:
        self._backend = make_backend(CPU, CONFIG)
        self._times = times
        self.links = 0

    def connect(self, store, rank):
        self.links += 1
        link = self._backend.connect(store, rank)
        send = link.send

        def damaged(data):
            if self._times:
                self._times -= 1
                data[len(data) // 2] ^= 1
            return send(data)

        link.send = damaged
        return link


async def test_a_damaged_segment_costs_a_channel_and_not_the_transfer():
    backend = Damaging(times=1)
    async with pair(prefill_backend=backend) as p:
        p.offer("t", range(20), TOKENS)
        await p.pull("t", admitted(range(20), 0, TOKENS))
        assert torch.equal(kv(p.target, range(20), 0, TOKENS), kv(p.source, range(20), 0, TOKENS))
        assert backend.links == 2


async def test_damage_again_fails_the_transfer():
    async with pair(prefill_backend=Damaging(times=1000)) as p:
        before = p.target.data.clone()
        p.offer("t", range(20), TOKENS)
        with pytest.raises(TransferError):
            await p.pull("t", admitted(range(20), 0, TOKENS))
        assert torch.equal(p.target.data, before)
