"""Sampling against a straightforward reference in numpy, over every parameter and combinations."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pdserve.engine.sampler import SampleRow, sample
from pdserve.sampling import SamplingParams
from tests.devices import needs_gpu

torch.set_num_threads(1)

VOCAB = 24
PROMPT, OUTPUT = (1, 2, 3, 3), (5, 5, 2, 9)
ENDS = frozenset({0, 7})
DRAWS = 3000


def some_logits(seed, vocab=VOCAB, scale=2.0):
    return np.random.default_rng(seed).normal(0, scale, vocab).astype(np.float32)


def a_row(params, output=OUTPUT):
    return SampleRow(params, (*PROMPT, *output), len(PROMPT), ENDS)


def choose(logits, rows):
    """The chosen ids; every row has the same `logits` [vocab]."""
    batch = torch.from_numpy(np.tile(logits, (len(rows), 1)))
    return [token.token_id for token in sample(batch, rows)]


def reference_logits(logits, row):
    """Bias, minimum length and penalties, one token at a time."""
    params, adjusted = row.params, [float(value) for value in logits]
    for token, bias in params.logit_bias.items():
        adjusted[token] += bias
    if row.index + 1 < params.min_tokens:
        for token in row.end_token_ids:
            adjusted[token] = -math.inf
    for token in set(row.tokens):
        value = adjusted[token]
        factor = params.repetition_penalty
        adjusted[token] = value / factor if value > 0 else value * factor
    output = list(row.tokens)[row.prompt_tokens :]
    for token in set(output):
        adjusted[token] -= params.frequency_penalty * output.count(token)
        adjusted[token] -= params.presence_penalty
    return np.array(adjusted)


def reference_distribution(logits, row):
    """Probabilities [vocab]: temperature, then min-p, then top-k, then top-p."""
    params = row.params
    scaled = reference_logits(logits, row) / params.temperature
    weights = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    weights[weights < params.min_p * weights.max()] = 0
    order = np.argsort(-weights)
    if params.top_k:
        weights[order[params.top_k :]] = 0
    weights /= weights.sum()
    before = 0.0
    for token in order:
        mass = weights[token]
        if before >= params.top_p:
            weights[token] = 0
        before += mass
    return weights / weights.sum()


def assert_drawn_from(expected, drawn):
    """Chi-square of the counts, tokens that are rarely expected taken as one."""
    counts = np.bincount(drawn, minlength=len(expected))
    assert not counts[expected == 0].any(), "a token that is excluded was drawn"
    common = expected * len(drawn) >= 5
    observed = [*counts[common], counts[~common].sum()]
    wanted = [*(expected[common] * len(drawn)), expected[~common].sum() * len(drawn)]
    chi2 = sum((o - w) ** 2 / w for o, w in zip(observed, wanted, strict=True) if w > 1e-9)
    degrees = max(1, int(common.sum()))
    assert chi2 < degrees + 5 * math.sqrt(2 * degrees) + 5, (chi2, degrees)


CASES = {
    "plain": {},
    "cold": {"temperature": 0.4},
    "hot": {"temperature": 3.0},
    "top_k": {"top_k": 5},
    "top_k beyond the vocabulary": {"top_k": 1000},
    "top_p": {"top_p": 0.7},
    "tiny top_p": {"top_p": 1e-6},
    "min_p": {"min_p": 0.2},
    "min_p of one": {"min_p": 1.0},
    "repetition": {"repetition_penalty": 1.7},
    "repetition encouraged": {"repetition_penalty": 0.5},
    "presence": {"presence_penalty": 1.5},
    "frequency": {"frequency_penalty": 1.5},
    "negative penalties": {"presence_penalty": -1.0, "frequency_penalty": -0.7},
    "bias": {"logit_bias": {4: 3.0, 11: -100.0}},
    "min_tokens": {"min_tokens": 9},
    "k and p": {"top_k": 8, "top_p": 0.6},
    "p and min_p": {"top_p": 0.8, "min_p": 0.1},
    "k and min_p": {"top_k": 4, "min_p": 0.05, "temperature": 1.5},
    "everything": {
        "temperature": 1.3,
        "top_k": 12,
        "top_p": 0.9,
        "min_p": 0.02,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.3,
        "logit_bias": {3: 2.0, 8: -1.0},
        "min_tokens": 9,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_drawn_from_the_reference_distribution(case):
    logits = some_logits(seed=len(case))
    params = SamplingParams(**CASES[case])
    rows = [a_row(replace(params, seed=seed)) for seed in range(DRAWS)]
    assert_drawn_from(reference_distribution(logits, rows[0]), choose(logits, rows))


def test_consecutive_tokens_of_one_seed_are_drawn_independently():
    logits = some_logits(3)
    rows = [a_row(SamplingParams(seed=5), output=[1] * index) for index in range(DRAWS)]
    drawn = choose(logits, rows)
    assert_drawn_from(reference_distribution(logits, rows[0]), drawn)
    most_likely = int(logits.argmax())
    after = [b for a, b in itertools.pairwise(drawn) if a == most_likely]
    assert_drawn_from(reference_distribution(logits, rows[0]), after)


@pytest.mark.parametrize("case", CASES)
def test_greedy_takes_the_largest_adjusted_logit(case):
    logits = some_logits(seed=len(case))
    row = a_row(SamplingParams(**(CASES[case] | {"temperature": 0.0})))
    assert choose(logits, [row]) == [int(reference_logits(logits, row).argmax())]


@pytest.mark.parametrize("top_k", [0, 900])
def test_a_nucleus_wider_than_the_first_candidates_is_whole(top_k):
    logits = some_logits(1, vocab=2000, scale=0.3)
    params = SamplingParams(top_p=0.9, top_k=top_k)
    rows = [a_row(replace(params, seed=seed)) for seed in range(DRAWS)]
    expected = reference_distribution(logits, rows[0])
    assert (expected > 0).sum() > 512
    assert_drawn_from(expected, choose(logits, rows))


def every_kind_of_row():
    kinds = [SamplingParams(**(CASES[case] | {"seed": 11})) for case in CASES]
    kinds += [replace(kind, temperature=0.0, logprobs=2) for kind in kinds]
    return [a_row(kind, OUTPUT[: index % 5]) for index, kind in enumerate(kinds)]


def test_a_row_depends_on_nothing_but_itself():
    rows = every_kind_of_row()
    logits = torch.from_numpy(np.stack([some_logits(seed) for seed in range(len(rows))]))
    together = sample(logits.clone(), rows)
    alone = [sample(logits[i : i + 1].clone(), rows[i : i + 1])[0] for i in range(len(rows))]
    assert together == alone
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    shuffled = sample(logits[order].clone(), [rows[index] for index in order])
    assert shuffled == [together[index] for index in order]


def test_another_instance_continues_a_stream_exactly():
    logits = some_logits(4)
    params = SamplingParams(seed=2**64 - 1)
    stream = [choose(logits, [a_row(params, [0] * index)])[0] for index in range(20)]
    rows = [a_row(params, [0] * index) for index in range(20)]
    assert choose(logits, rows[8:]) == stream[8:]
    assert len(set(stream)) > 3, "the index changes the draw"
    other = [choose(logits, [replace(row, params=SamplingParams(seed=1))])[0] for row in rows]
    assert other != stream, "so does the seed"


def test_end_tokens_wait_for_the_minimum():
    logits = np.full(VOCAB, -5.0, np.float32)
    logits[7] = 50.0
    for temperature in (0.0, 1.0):
        params = SamplingParams(min_tokens=3, temperature=temperature)
        early = choose(logits, [a_row(params, [9] * index) for index in range(2)])
        assert not set(early) & ENDS
        assert choose(logits, [a_row(params, [9, 9])]) == [7], "the third may be the end"


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 5e-324])
def test_a_tiny_temperature_is_as_good_as_greedy(temperature):
    logits = some_logits(2)
    rows = [a_row(SamplingParams(temperature=temperature, seed=seed)) for seed in range(20)]
    assert set(choose(logits, rows)) == {int(logits.argmax())}


def test_excluded_tokens_are_never_drawn():
    logits = np.full(VOCAB, -np.inf, np.float32)
    logits[[4, 11]] = [1.0, 1.2]
    for extra in ({}, {"top_p": 0.99}, {"top_k": 10}, {"min_p": 0.1}, {"temperature": 100.0}):
        rows = [a_row(SamplingParams(seed=seed, **extra)) for seed in range(200)]
        assert set(choose(logits, rows)) == {4, 11}
    penalized = SamplingParams(repetition_penalty=2.0, frequency_penalty=2.0, temperature=0.0)
    assert choose(logits, [a_row(penalized)]) == [11]


def test_logprobs_are_the_models_own():
    logits = some_logits(6)
    expected = torch.log_softmax(torch.from_numpy(logits), -1)
    params = SamplingParams(temperature=0.3, top_k=3, logit_bias={1: 50.0}, logprobs=4)
    (token,) = sample(torch.from_numpy(logits.copy())[None], [a_row(params)])
    assert token.token_id == 1
    assert token.logprob == pytest.approx(float(expected[1]), abs=1e-6)
    best = np.argsort(-logits)[:4].tolist()
    assert [token_id for token_id, _ in token.top] == best
    assert [value for _, value in token.top] == pytest.approx(expected[best].tolist(), abs=1e-6)


def test_logprobs_of_the_token_alone_and_of_more_tokens_than_there_are():
    rows = [a_row(SamplingParams(logprobs=count)) for count in (0, 20)]
    none, every = sample(torch.zeros(2, 10), rows)
    assert none.logprob == pytest.approx(math.log(1 / 10))
    assert none.top == []
    assert len(every.top) == 10


def test_no_logprobs_unless_asked_for():
    (token,) = sample(torch.from_numpy(some_logits(1))[None], [a_row(SamplingParams())])
    assert (token.logprob, token.top) == (None, [])


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 0.8},
        {"temperature": 0.9, "top_p": 0.95},
        {"temperature": 1.2, "top_k": 40, "min_p": 0.01},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": -0.5},
        {"logit_bias": {3: 4.0, 9: -100.0}, "min_tokens": 8, "logprobs": 3},
    ],
    ids=str,
)
def test_a_gpu_chooses_the_same(options):
    torch.manual_seed(1)
    logits = 3 * torch.randn(200, 32_000)
    rows = [a_row(SamplingParams(seed=seed, **options)) for seed in range(len(logits))]
    there = sample(logits.cuda(), rows)
    here = sample(logits, rows)
    assert [each.token_id for each in there] == [each.token_id for each in here]
    for one, other in zip(there, here, strict=True):
        assert one.logprob == pytest.approx(other.logprob, rel=1e-4)
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
