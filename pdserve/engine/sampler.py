"""Chooses the next token of every row of a batch."""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field

import torch

from pdserve.engine.noise import gumbel, stream_key
from pdserve.sampling import SamplingParams

# Candidates that are sorted first; a nucleus that is wider falls back to sorting the vocabulary.
_NUCLEUS = 512


@dataclass(frozen=True, slots=True)
class SampleRow:
    """What one row's choice depends on besides its logits: the prompt, then the output so far."""

    params: SamplingParams
    tokens: Rows[int]
    prompt_tokens: int
    end_token_ids: frozenset[int]

    @property
    def index(self) -> int:
        """Position of the token to choose in the output."""
        return len(self.tokens) - self.prompt_tokens


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A chosen token; `top` holds (token id, logprob), most likely first."""

    token_id: int
    logprob: float | None = None
    top: list[tuple[int, float]] = field(default_factory=list)


def sample(logits: torch.Tensor, rows: Rows[SampleRow]) -> list[SampledToken]:
    """The next token of each row of `logits` [rows, vocab] (float32, overwritten).

    A row's choice depends on that row alone: not on its position, nor on its neighbours.
    """
    reported = _report_logprobs(logits, rows)
    _adjust(logits, rows)
    token_ids = torch.argmax(logits, dim=-1)
    random = [index for index, row in enumerate(rows) if not row.params.greedy]
    if random:
        chosen = _draw(logits[random], [rows[index] for index in random])
        token_ids[random] = chosen
    ids = token_ids.tolist()
    return [
        SampledToken(token_id) if report is None else report.of(token_id)
        for token_id, report in zip(ids, reported, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Report:
    logprobs: torch.Tensor  # [vocab], of the model itself: before penalties and temperature
    top: list[tuple[int, float]]

    def of(self, token_id: int) -> SampledToken:
        return SampledToken(token_id, float(self.logprobs[token_id]), self.top)


def _report_logprobs(logits: torch.Tensor, rows: Rows[SampleRow]) -> list[_Report | None]:
    reports: list[_Report | None] = []
    for index, row in enumerate(rows):
        if row.params.logprobs is None:
            reports.append(None)
            continue
        logprobs = torch.log_softmax(logits[index], dim=-1)
        values, ids = torch.topk(logprobs, min(row.params.logprobs, len(logprobs)))
        reports.append(_Report(logprobs, list(zip(ids.tolist(), values.tolist(), strict=True))))
    return reports


def _adjust(logits: torch.Tensor, rows: Rows[SampleRow]) -> None:
    """Applies bias, minimum length and penalties in place."""
    for row_logits, row in zip(logits, rows, strict=True):
        params = row.params
        if params.logit_bias:
            ids = _ids(params.logit_bias, logits.device)
            row_logits[ids] += torch.tensor(list(params.logit_bias.values()), device=logits.device)
        if row.index + 1 < params.min_tokens and row.end_token_ids:
            row_logits[_ids(row.end_token_ids, logits.device)] = float("-inf")
        if params.penalized:
            _penalize(row_logits, row)


def _penalize(logits: torch.Tensor, row: SampleRow) -> None:
    """Repetition as in CTRL (Keskar et al. 2019, section 4.1); others as OpenAI defines them."""
    params = row.params
    if params.repetition_penalty != 1.0:
        seen = _ids(set(row.tokens), logits.device)
        values = logits[seen]
        penalty = params.repetition_penalty
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    counts = Counter(row.tokens[row.prompt_tokens :])
    if counts:
        frequency = torch.tensor(list(counts.values()), dtype=logits.dtype, device=logits.device)
        cost = params.frequency_penalty * frequency + params.presence_penalty
        logits[_ids(counts, logits.device)] -= cost


def _ids(ids: Iterable[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(list(ids), dtype=torch.int64, device=device)


def _draw(logits: torch.Tensor, rows: Rows[SampleRow]) -> torch.Tensor:
    """Token ids [rows], each the largest sum of log-probability and the token's own noise.

    Rounding differs between instances, with the batch. Noise of its own for each token makes that
    matter only where two sums all but tie; inverting the cumulated distribution at one random
    number would let the rounding of all tokens before the chosen one matter.
    """
    device = logits.device
    temperature = torch.tensor(
        [row.params.temperature for row in rows], dtype=torch.float64, device=device
    )
    keys = torch.tensor([stream_key(row.params.seed, row.index) for row in rows], device=device)
    # Against the largest logit first: dividing by a tiny temperature then overflows only downwards.
    excess = (logits - logits.amax(-1, keepdim=True)).double()
    logprobs = torch.log_softmax(excess / temperature[:, None], dim=-1)
    chosen = torch.empty(len(rows), dtype=torch.int64, device=device)
    whole = [index for index, row in enumerate(rows) if not _filtered(row.params)]
    if whole:
        ids = torch.arange(logits.shape[-1], device=device)
        chosen[whole] = (logprobs[whole] + gumbel(keys[whole, None], ids)).argmax(-1)
    for index, row in enumerate(rows):
        if _filtered(row.params):
            ids = _keep(logprobs[index].exp(), row.params)
            chosen[index] = ids[(logprobs[index, ids] + gumbel(keys[index], ids)).argmax()]
    return chosen


def _filtered(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0


def _keep(probabilities: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The ids [kept] that min-p, then top-k, then top-p leave, most likely first."""
    vocab = probabilities.shape[-1]
    width = min(params.top_k or vocab, vocab)
    floor = params.min_p * probabilities.max()
    kept, ids = torch.topk(probabilities, min(width, _NUCLEUS))
    if len(kept) < width and kept[-1] >= floor and (params.top_k or kept.sum() < params.top_p):
        kept, ids = torch.topk(probabilities, width)
    mask = kept >= floor
    if params.top_p < 1.0:
        left = kept if params.top_k else probabilities
        total = torch.where(left >= floor, left, 0).sum()
        # A token is in the nucleus unless those before it already reach top_p.
        mask &= kept.cumsum(-1) - kept < params.top_p * total
    mask[0] = True
    return ids[mask]
