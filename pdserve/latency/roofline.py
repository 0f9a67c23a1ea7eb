"""Costs worked out from a model's sizes and a GPU's figures, where nothing was measured.

A pass takes as long as the slower of its arithmetic and its memory traffic (Williams, Waterman and
Patterson, "Roofline", CACM 2009), here per part of a pass, because the parts run one after another:
the linear layers, attention, and communication. `RooflineFactors` says what share of each figure is
reached.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pdserve.errors import ConfigError
from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.latency.factors import RooflineFactors
from pdserve.latency.fit import FitError, relative_error
from pdserve.latency.hardware import Gpu
from pdserve.latency.link import LinkCost
from pdserve.latency.shard import Shard
from pdserve.latency.source import KvShape
from pdserve.models.config import DTYPE_BYTES, ModelConfig

_GIB = 1 << 30
# Where the straight line through prefill times is fitted, in tokens of one prompt.
_FIT_TOKENS = 2.0 ** np.arange(6, 13.5, 0.5)
# A stage's output goes to the next one in one message.
_STAGE_LATENCY_S = 10e-6
_ALL_REDUCES_PER_LAYER = 2


@dataclass(frozen=True, slots=True)
class Roofline:
    """A `LatencySource` of `config` in `dtype` on `hardware`.

    `max_tp` is at most the number of GPUs in a node, since the ranks of one stage talk over
    `hardware.link_bytes_per_s`; `stage_link` is what pipeline stages talk over, by default the same
    link. Raises `ConfigError` for an unknown dtype or a limit below 1.
    """

    model: str
    config: ModelConfig
    dtype: str
    hardware: Gpu
    max_tp: int = 8
    max_pp: int = 8
    factors: RooflineFactors = field(default_factory=RooflineFactors)
    stage_link: LinkCost | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            known = ", ".join(DTYPE_BYTES)
            raise ConfigError(
                f"dtype is {self.dtype!r}; it must be one of {known}", field="dtype", limit=known
            )
        for name, value in (("max_tp", self.max_tp), ("max_pp", self.max_pp)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1", field=name)

    @property
    def gpu(self) -> str:
        """The GPU's name."""
        return self.hardware.name

    @property
    def policy(self) -> str:
        """The batching of pdserve's own engine."""
        return "pdserve"

    @property
    def origin(self) -> str:
        """Where the figures come from, in words."""
        return f"roofline of {self.dtype} on {self.gpu}, not measured"

    @property
    def kv(self) -> KvShape:
        """The shape of a token's KV."""
        config = self.config
        return KvShape(config.layers, config.kv_heads, config.head_dim, DTYPE_BYTES[self.dtype])

    def parallelisms(self) -> Sequence[tuple[int, int]]:
        """Every (TP, PP) of powers of two that divides the model and leaves room for KV."""
        found = []
        for tp in _powers_of_two(self.max_tp):
            for pp in _powers_of_two(self.max_pp):
                try:
                    self._room(self._shard(tp, pp))
                except ConfigError:
                    continue
                found.append((tp, pp))
        return found

    def instance(self, tp: int, pp: int) -> InstanceCost:
        """The costs with this TP and PP, powers of two or not; `ConfigError` says what prevents it.

        The decode costs are exact. The prefill cost is a fit: see `prefill_fit`.
        """
        shard = self._shard(tp, pp)
        prefill, _ = self._prefill(shard)
        small, large, large_from = self._decode(shard)
        return InstanceCost(
            tp=tp,
            pp=pp,
            prefill=prefill,
            decode=small,
            decode_large=large,
            large_from=large_from,
            kv_tokens=self._room(shard),
        )

    def prefill_fit(self, tp: int, pp: int) -> FitError:
        """How far the linear prefill cost is from the roofline, which bends at short prompts."""
        _, error = self._prefill(self._shard(tp, pp))
        return error

    def _shard(self, tp: int, pp: int) -> Shard:
        for name, value, most in (("tp", tp, self.max_tp), ("pp", pp, self.max_pp)):
            if value > most:
                raise ConfigError(
                    f"{name} is {value}; it must be at most {most}", field=name, limit=str(most)
                )
        return Shard(self.config, self.dtype, tp, pp)

    def _room(self, shard: Shard) -> int:
        """Tokens of KV that an instance holds."""
        usable = self.hardware.memory_bytes * self.factors.memory
        tokens = shard.kv_tokens(usable, self.factors.activation_tokens)
        if tokens < 1:
            raise ConfigError(
                f"{self.model} with tp={shard.tp},pp={shard.pp} has "
                f"{shard.weight_bytes / _GIB:.1f} GiB of weights a GPU, which leaves no room for "
                f"KV in the {usable / _GIB:.1f} GiB that may be used of {self.gpu}",
                field="gpu",
                limit=f"{usable / _GIB:.1f} GiB",
            )
        return tokens

    def _prefill(self, shard: Shard) -> tuple[PrefillCost, FitError]:
        """A pass is bound by reading weights while it is short, then by computing.

        A new token sees those before it and, by causality, on average half of those computed with
        it: ((past + new)² − past²) / 2 pairs in all. That part is exact; the bend of the other is
        put straight by least squares of errors relative to the whole pass.
        """
        flops = self.hardware.flops_in(self.dtype) * self.factors.linear
        square_s = self._pair_s(shard) / 2
        bent = np.maximum(_FIT_TOKENS * shard.flops_per_token / flops, self._reading_s(shard))
        bent += self._fixed_s(shard) + _FIT_TOKENS * self._communication_s(shard)
        attention = _FIT_TOKENS**2 * square_s
        rows = np.column_stack([np.ones_like(_FIT_TOKENS), _FIT_TOKENS])
        weights = 1 / (bent + attention)
        line, *_ = np.linalg.lstsq(rows * weights[:, None], bent * weights, rcond=None)
        cost = PrefillCost(float(line[0]), float(line[1]), square_s)
        return cost, relative_error(rows @ line + attention, bent + attention)

    def _decode(self, shard: Shard) -> tuple[DecodeCost, DecodeCost, int]:
        """A step is bound by reading weights until its batch is large enough to compute longer.

        Attention reads KV that no other sequence reads, so that it does not gain from the batch.
        """
        flops = self.hardware.flops_in(self.dtype) * self.factors.linear
        reading = self._reading_s(shard)
        computing = (shard.flops_per_token + shard.head_flops) / flops
        rate = self.hardware.memory_bytes_per_s * self.factors.kv
        context = max(shard.kv_read_bytes / rate, self._pair_s(shard))
        fixed, communication = self._fixed_s(shard), self._communication_s(shard)
        small = DecodeCost(fixed + reading, context, communication)
        large = DecodeCost(fixed, context, communication + computing)
        return small, large, int(np.ceil(reading / computing))

    def _reading_s(self, shard: Shard) -> float:
        return shard.read_bytes / (self.hardware.memory_bytes_per_s * self.factors.weights)

    def _pair_s(self, shard: Shard) -> float:
        flops = self.hardware.flops_in(self.dtype) * self.factors.attention
        return shard.attention_flops_per_pair / flops

    def _fixed_s(self, shard: Shard) -> float:
        """Seconds of a pass through all stages that do not depend on what is in it."""
        layers = self.config.layers
        ring = _ALL_REDUCES_PER_LAYER * 2 * (shard.tp - 1) * self.factors.ring_step_s
        stages = (shard.pp - 1) * self._stage_link.latency_s + shard.pp * self.factors.pass_s
        return layers * (self.factors.layer_s + ring) + stages

    def _communication_s(self, shard: Shard) -> float:
        """Seconds per token of all-reduces and between stages.

        In a ring each rank sends 2 (TP − 1) / TP times the data (Patarasuk and Yuan, "Bandwidth
        Optimal All-reduce Algorithms", JPDC 2009).
        """
        sent = _ALL_REDUCES_PER_LAYER * self.config.layers * 2 * (shard.tp - 1) / shard.tp
        ring = sent / (self.hardware.ring_bytes_per_s(shard.tp) * self.factors.link)
        stages = (shard.pp - 1) / self._stage_link.bytes_per_s
        return shard.token_bytes * (ring + stages)

    @property
    def _stage_link(self) -> LinkCost:
        return self.stage_link or LinkCost(_STAGE_LATENCY_S, self.hardware.link_bytes_per_s)


def _powers_of_two(limit: int) -> list[int]:
    return [1 << exponent for exponent in range(limit.bit_length())]
