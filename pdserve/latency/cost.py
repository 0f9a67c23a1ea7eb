"""What the passes of one instance cost, as linear functions of what is in them.

The forms are those of DistServe (OSDI 2024, appendix A), whose authors fit them to measurements: a
prefill pass is bound by computing, linear in its tokens but for attention, which is quadratic; a
decode step is bound by reading weights and KV, linear in the context, with another slope from the
batch size on at which its matrix products become bound by computing as well.

The formulas are functions of whatever has the fields of `InstanceCost`: the planner compiles them
for its simulator and feeds them rows of a table, so that what was planned is what is routed by.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrefillCost:
    """Seconds of one pass: `base_s + per_token_s · tokens + per_square_s · squares`.

    `tokens` is Σ new and `squares` is Σ ((past + new)² − past²), over the prompts of the batch:
    `new` tokens are computed after `past` ones whose KV is there already, from the prefix cache or
    from an earlier chunk.
    """

    base_s: float
    per_token_s: float
    per_square_s: float


@dataclass(frozen=True, slots=True)
class DecodeCost:
    """Seconds of one step: `base_s + per_context_token_s · context + per_sequence_s · batch`."""

    base_s: float
    per_context_token_s: float
    per_sequence_s: float


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What a pass costs before its first stage computes: `base_s + per_token_s · context`."""

    base_s: float = 0.0
    per_token_s: float = 0.0


@dataclass(frozen=True, slots=True)
class InstanceCost:
    """The passes of one instance: a model on one kind of GPU, with TP = `tp` and PP = `pp`.

    `prefill` and `decode` are the whole model's passes with all its layers; a pipeline stage takes
    `1 / pp` of one, and every stage of a prefill pass `prefill_stage_s` besides. Steps of
    `large_from` sequences and more cost `decode_large`. `kv_tokens` is how many tokens of KV the
    instance holds.
    """

    tp: int
    pp: int
    prefill: PrefillCost
    decode: DecodeCost
    decode_large: DecodeCost
    large_from: int
    kv_tokens: int
    prefill_stage_s: float = 0.0
    dispatch: Dispatch = Dispatch()

    @property
    def gpus(self) -> int:
        """How many GPUs the instance takes."""
        return self.tp * self.pp

    def prefill_s(self, tokens: float, squares: float | None = None) -> float:
        """Seconds of a prefill pass through all stages, by default of one whole prompt."""
        return prefill_s(self, tokens, tokens * tokens if squares is None else squares)

    def decode_s(self, batch: float, context: float) -> float:
        """Seconds between two tokens of a sequence while `batch` sequences decode."""
        return decode_s(self, batch, context)

    def mixed_s(self, tokens: float, squares: float, batch: float, context: float) -> float:
        """Seconds of a step with prefill chunks and decoding sequences in one ragged batch."""
        return mixed_s(self, tokens, squares, batch, context)


def dispatch_s(cost: InstanceCost, context: float) -> float:
    """Seconds before the first stage of a pass over `context` tokens computes."""
    return cost.dispatch.base_s + cost.dispatch.per_token_s * context


def prefill_stage_s(cost: InstanceCost, tokens: float, squares: float) -> float:
    """Seconds that one pipeline stage computes for a prefill pass."""
    line = cost.prefill
    whole = line.base_s + line.per_token_s * tokens + line.per_square_s * squares
    return whole / cost.pp + cost.prefill_stage_s


def prefill_s(cost: InstanceCost, tokens: float, squares: float) -> float:
    """Seconds from the dispatch of a prefill pass until its last stage has computed it."""
    return dispatch_s(cost, tokens) + cost.pp * prefill_stage_s(cost, tokens, squares)


def decode_s(cost: InstanceCost, batch: float, context: float) -> float:
    """Seconds between two tokens of a sequence while `batch` sequences decode.

    With `pp` stages the sequences go round in `pp` equal groups: each stage reads its share of the
    weights for every group, but only the group's part of the KV. One round is `pp` stage times of a
    group, `T(batch / pp, context / pp)`, and as many dispatches.
    """
    line = cost.decode_large if batch >= cost.large_from * cost.pp else cost.decode
    return decode_line_s(line, cost, batch, context)


def decode_line_s(line: DecodeCost, cost: InstanceCost, batch: float, context: float) -> float:
    """`decode_s` by the line that holds for the batch."""
    whole = (
        line.base_s + (line.per_context_token_s * context + line.per_sequence_s * batch) / cost.pp
    )
    return whole + cost.pp * cost.dispatch.base_s + cost.dispatch.per_token_s * context


def mixed_s(
    cost: InstanceCost, tokens: float, squares: float, batch: float, context: float
) -> float:
    """Seconds of a step with prefill chunks and decoding sequences in one ragged batch.

    The linear layers see all tokens at once, so that weights are read once: their time is the
    longer of computing `tokens + batch` tokens and of reading the weights. Attention over the
    decoding sequences' context comes on top (Sarathi-Serve, OSDI 2024, section 4.2).
    """
    line = cost.decode_large if batch >= cost.large_from else cost.decode
    computing = prefill_s(cost, tokens, squares) + cost.prefill.per_token_s * batch
    reading = line.base_s + line.per_sequence_s * batch
    return max(computing, reading) + line.per_context_token_s * context
