"""Where the costs of an instance come from, behind one interface."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pdserve.latency.cost import InstanceCost


@dataclass(frozen=True, slots=True)
class KvShape:
    """What determines the bytes of a token's KV. `dtype_bytes` is the size of one element."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype_bytes: int

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of one token over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype_bytes


class LatencySource(Protocol):
    """Costs of one model on one kind of GPU."""

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    @property
    def gpu(self) -> str:
        """The kind of GPU, as the hardware catalogue or the source names it."""
        ...

    @property
    def policy(self) -> str:
        """The batching policy of the engine that was measured: pdserve, distserve or vllm."""
        ...

    @property
    def origin(self) -> str:
        """Where the figures come from, in words."""
        ...

    @property
    def kv(self) -> KvShape:
        """The shape of a token's KV."""
        ...

    def parallelisms(self) -> Sequence[tuple[int, int]]:
        """Every (TP, PP) with known costs whose weights leave room for KV, in ascending order."""
        ...

    def instance(self, tp: int, pp: int) -> InstanceCost:
        """The costs with this TP and PP; `ConfigError` with the reason where there are none."""
        ...
