"""Which batching a plan's instances get."""

import math
from dataclasses import dataclass, replace

from pdserve.latency.cost import InstanceCost
from pdserve.planner.plan import Layout, Role
from pdserve.planner.simulator.policy import DISTSERVE, PDSERVE, VLLM, Policy

# Whose costs are published with their own simulator's batching.
_PUBLISHED_ENGINES = ("distserve", "vllm")
_LEAST_TOKENS, _MOST_TOKENS = 128, 8192
# A prefill pass is saturated where its fixed time is this share of it.
_FIXED_SHARE = 0.05
# Token budgets that are tried where both phases share an instance: it is what trades their SLOs.
_CHUNKS = (256, 512, 1024, 2048)


@dataclass(frozen=True, slots=True)
class Batching:
    """How the instances of one engine batch. `engine` is what the costs were measured on."""

    engine: str
    max_batch_seqs: int = PDSERVE.max_batch_seqs
    block_size: int = PDSERVE.block_size

    def policy(self, layout: Layout, max_batch_tokens: int) -> Policy:
        """The policy with this token budget."""
        if self.engine in _PUBLISHED_ENGINES:
            chunked = layout == "colocated-chunked"
            return replace(DISTSERVE, chunked=chunked, max_batch_tokens=max_batch_tokens)
        return replace(
            VLLM if layout == "colocated-whole" else PDSERVE,
            max_batch_tokens=max_batch_tokens,
            max_batch_seqs=self.max_batch_seqs,
            block_size=self.block_size,
        )

    def budgets(self, role: Role, layout: Layout, cost: InstanceCost) -> list[int]:
        """The token budgets worth trying for an instance with this role."""
        if layout == "colocated-chunked":
            return [size for size in _CHUNKS if size >= self.max_batch_seqs] or [_CHUNKS[-1]]
        if self.engine in _PUBLISHED_ENGINES:
            return [0]
        if layout == "colocated-whole":
            return [VLLM.max_batch_tokens]
        return [saturating_tokens(cost) if role == "prefill" else PDSERVE.max_batch_tokens]


def saturating_tokens(cost: InstanceCost) -> int:
    """The token budget at which a prefill pass saturates the instance: a power of 2.

    More tokens in a pass would only make each wait for more others (DistServe, section 4.3).
    """
    fixed_s = cost.prefill.base_s + cost.pp * cost.prefill_stage_s + cost.dispatch.base_s
    per_token_s = cost.prefill.per_token_s
    wanted = fixed_s / per_token_s * (1 / _FIXED_SHARE - 1) if per_token_s > 0 else math.inf
    bounded = min(max(wanted, _LEAST_TOKENS), _MOST_TOKENS)
    return 1 << math.ceil(math.log2(bounded))
