"""However a request is served, the model says the same."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from pdserve.models.source import resolve_model
from pdserve.rpc.v1 import router_pb2, types_pb2
from pdserve.text.tokenizer import Tokenizer
from tests.devices import CUDA, DEVICES, needs_gpu
from tests.gguf_reference import load_reference
from tests.integration.harness import (
    PATIENT,
    Answer,
    by_ids,
    cluster,
    generate_all,
    greedy,
    on_device,
)

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

LENGTHS = (5, 7, 12, 16, 17, 24, 33, 48, 64, 90, 100, 111, 129, 133, 144, 160, 200, 256, 300, 700)
NEW_TOKENS = 24
SEEDED = 6

WHOLE = replace(PATIENT, max_batch_tokens=2048)
# Chunks, streaming by layer group, and small segments.
PIECEWISE = replace(PATIENT, max_batch_tokens=96, layer_group=4, segment_bytes=1 << 18)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Prompts of every length, cut from English text at different places."""
    tokenizer = Tokenizer.load(resolve_model("smollm2-135m-instruct"))
    text = tokenizer.encode(Path("LICENSE").read_text())
    return [text[(37 * i) % 700 :][:length] for i, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def requests(prompts: list[list[int]]) -> list[router_pb2.GenerateRequest]:
    """Greedy ones for every prompt, then seeded ones for some."""
    asked = [by_ids(prompt, greedy(NEW_TOKENS, ignore_eos=True)) for prompt in prompts]
    for seed, prompt in enumerate(prompts[:SEEDED]):
        sampling = types_pb2.Sampling(
            temperature=0.9, top_p=0.95, seed=seed, max_tokens=NEW_TOKENS, ignore_eos=True
        )
        asked.append(by_ids(prompt, sampling))
    return asked


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def colocated(
    requests: list[router_pb2.GenerateRequest], device: torch.device
) -> list[Answer]:
    async with cluster(0, 1, on_device(WHOLE, device)) as (_, channel):
        return await generate_all(channel, requests)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def disaggregated(
    requests: list[router_pb2.GenerateRequest], device: torch.device
) -> AsyncIterator[tuple[list[Answer], list[Answer]]]:
    """The answers of a fresh cluster, and of the same one with a warm prefix cache."""
    async with cluster(1, 1, on_device(WHOLE, device)) as (_, channel):
        yield await generate_all(channel, requests), await generate_all(channel, requests)


async def test_transformers_would_choose_each_token(
    prompts: list[list[int]], colocated: list[Answer]
) -> None:
    """One forward of prompt and answer: every token is the most likely one after those before.

    By induction that is what greedy generation by transformers yields.
    """
    model = load_reference(resolve_model("smollm2-135m-instruct").path)
    for prompt, answer in zip(prompts, colocated[: len(prompts)], strict=True):
        ids = torch.tensor([prompt + answer.ids])
        with torch.inference_mode():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == answer.ids, f"prompt of {len(prompt)} tokens"


def assert_same(ours: list[Answer], reference: list[Answer]) -> None:
    for one, other in zip(ours, reference, strict=True):
        assert one.ids == other.ids
        assert one.text == other.text


async def test_disaggregated_says_the_same(
    colocated: list[Answer], disaggregated: tuple[list[Answer], list[Answer]]
) -> None:
    fresh, _ = disaggregated
    assert_same(fresh, colocated)
    for answer in fresh:
        tried = [(each.rung, each.failure) for each in answer.end.attempts]
        assert tried == [("remote", "")], answer.end.attempts
    # A prompt that comes twice may find all its blocks where its twin left them.
    for answer in fresh[SEEDED : len(LENGTHS)]:
        assert answer.end.ledger.transfer_bytes > 0


async def test_prefix_cache_hits_change_nothing(
    colocated: list[Answer], disaggregated: tuple[list[Answer], list[Answer]]
) -> None:
    _, cached = disaggregated
    assert_same(cached, colocated)
    for length, answer in zip(LENGTHS, cached, strict=False):
        full_blocks = (length - 1) // WHOLE.block_size
        assert answer.end.cached_tokens >= full_blocks * WHOLE.block_size


async def test_chunks_and_layer_groups_change_nothing(
    requests: list[router_pb2.GenerateRequest], colocated: list[Answer], device: torch.device
) -> None:
    async with cluster(1, 1, on_device(PIECEWISE, device)) as (_, channel):
        assert_same(await generate_all(channel, requests[::3]), colocated[::3])


@pytest.mark.gpu
@needs_gpu
async def test_bfloat16_mostly_says_the_same(requests: list[router_pb2.GenerateRequest]) -> None:
    """Its rounding differs with the batch, so that some answers part ways somewhere."""
    half = replace(on_device(WHOLE, CUDA), dtype="bfloat16")
    async with cluster(0, 1, half) as (_, channel):
        whole = await generate_all(channel, requests)
    async with cluster(1, 1, half) as (_, channel):
        halves = await generate_all(channel, requests)
    assert {each.rung for answer in halves for each in answer.end.attempts} == {"remote"}
    firsts = [one.ids[:4] == other.ids[:4] for one, other in zip(whole, halves, strict=True)]
    assert sum(firsts) >= 0.8 * len(firsts)
