"""The decoder computes what transformers computes, however the work is cut into steps."""

import random
from pathlib import Path

import pytest
import torch
from tiny_models import (
    FAMILIES,
    Text,
    make_checkpoint,
    make_pool,
    random_tokens,
    reference_logits,
    run,
    source_of,
)

from pdserve.engine.batch import RaggedBatch
from pdserve.engine.loader import LoadedModel, load_model
from tests.devices import CPU, DEVICES

BLOCK = 4


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return request.param


@pytest.fixture(scope="module", params=FAMILIES)
def pair(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    device: torch.device,
) -> tuple[torch.nn.Module, LoadedModel]:
    """A model of each family in transformers, on the CPU, and here."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp(request.param)
    reference = make_checkpoint(request.param, directory)
    return reference, load_model(source_of(directory), torch.float32, device)


def shuffled_blocks(total: int, *lengths: int) -> list[list[int]]:
    blocks = list(range(total))
    random.Random(3).shuffle(blocks)
    return [[blocks.pop() for _ in range(-(-length // BLOCK))] for length in lengths]


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_whole_prefill(pair: tuple[torch.nn.Module, LoadedModel], device: torch.device) -> None:
    reference, model = pair
    tokens = random_tokens(90)
    pool = make_pool(model, blocks=40, block_size=BLOCK, device=device)
    text = Text(tokens, shuffled_blocks(40, 90)[0])
    logits = run(model, pool, [text.next_span(90)])
    assert logits.dtype == torch.float32
    assert_close(logits, reference_logits(reference, tokens)[-1:])


def test_prefill_in_chunks_then_decode(
    pair: tuple[torch.nn.Module, LoadedModel], device: torch.device
) -> None:
    reference, model = pair
    tokens = random_tokens(60, seed=1)
    pool = make_pool(model, blocks=40, block_size=BLOCK, device=device)
    text = Text(tokens, shuffled_blocks(40, 60)[0])
    expected = reference_logits(reference, tokens)
    for count in (7, 16, 1, 30, *[1] * 6):
        logits = run(model, pool, [text.next_span(count)])
        assert_close(logits[0], expected[text.done - 1])


def test_a_ragged_batch_of_everything(
    pair: tuple[torch.nn.Module, LoadedModel], device: torch.device
) -> None:
    reference, model = pair
    lengths = (41, 9, 23, 64, 12, 5, 80, 37)
    pool = make_pool(model, blocks=80, block_size=BLOCK, device=device)
    tables = shuffled_blocks(80, *lengths)
    texts = [Text(random_tokens(n, seed=n), b) for n, b in zip(lengths, tables, strict=True)]
    expected = [reference_logits(reference, text.token_ids) for text in texts]
    order = random.Random(5)
    while unfinished := [i for i, text in enumerate(texts) if text.done < lengths[i]]:
        chosen = order.sample(unfinished, order.randint(1, len(unfinished)))
        spans, wanted = [], []
        for index in chosen:
            left = lengths[index] - texts[index].done
            span = texts[index].next_span(
                min(left, order.choice((1, 1, 3, 20))), sample=order.random() < 0.8
            )
            spans.append(span)
            wanted += [expected[index][span.end - 1]] if span.sample else []
        logits = run(model, pool, spans)
        assert logits.shape[0] == len(wanted)
        if wanted:
            assert_close(logits, torch.stack(wanted))


def test_layer_groups_are_reported_in_order_once_their_kv_is_there(
    pair: tuple[torch.nn.Module, LoadedModel], device: torch.device
) -> None:
    _, model = pair
    pool = make_pool(model, blocks=4, block_size=BLOCK, device=device)
    text = Text(random_tokens(8), [2, 0])
    written: list[tuple[int, int, bool, bool]] = []

    def note(begin: int, end: int) -> None:
        this_group = pool.data[begin:end][:, :, [2, 0]].abs().amin() > 0
        later = pool.data[end:].abs().sum() > 0
        written.append((begin, end, bool(this_group), bool(later)))

    batch = RaggedBatch.build([text.next_span(8)], BLOCK, device)
    model.decoder.forward(batch, pool, note)
    layers = model.config.layers
    assert written == [(i, i + 1, True, False) for i in range(layers)]
    assert pool.data[:, :, [1, 3]].abs().sum() == 0


def test_layers_can_be_reported_in_larger_groups(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    model = load_model(source_of(tmp_path), torch.float32, CPU, layer_group=2)
    pool = make_pool(model, blocks=1, block_size=BLOCK)
    batch = RaggedBatch.build([Text([1, 2], [0]).next_span(2)], BLOCK, CPU)
    groups: list[tuple[int, int]] = []
    model.decoder.forward(batch, pool, lambda *group: groups.append(group))
    assert groups == [(0, 2), (2, 3)]
    assert model.decoder.layer_groups == [range(2), range(2, 3)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(
    pair: tuple[torch.nn.Module, LoadedModel],
    device: torch.device,
    tmp_path: Path,
    dtype: torch.dtype,
) -> None:
    reference, _ = pair
    reference.save_pretrained(tmp_path)
    model = load_model(source_of(tmp_path), dtype, device)
    tokens = random_tokens(24, seed=2)
    name = str(dtype).removeprefix("torch.")
    pool = make_pool(model, blocks=8, block_size=BLOCK, dtype=name, device=device)
    text = Text(tokens, list(range(8)))
    run(model, pool, [text.next_span(20)])
    logits = run(model, pool, [text.next_span(4)])
    expected = reference_logits(reference, tokens)[-1]
    assert logits.dtype == torch.float32
    similarity = torch.cosine_similarity(logits[0], expected, dim=0)
    assert similarity > 0.998
