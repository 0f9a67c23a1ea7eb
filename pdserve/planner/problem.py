"""What a plan is sought for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pdserve.errors import ConfigError
from pdserve.latency.cost import InstanceCost
from pdserve.latency.source import LatencySource
from pdserve.planner.cluster import Cluster
from pdserve.planner.goodput import Bisection
from pdserve.planner.policies import Batching
from pdserve.planner.slo import Slo
from pdserve.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to look.

    Single instances are judged by the first `instance_requests` of the workload, whole plans by
    `plan_requests`; `seeds` workloads (the given one, and rotations of it) make the confidence of
    the final figures, and `threads` simulate at once.
    """

    instance_requests: int = 10_000
    plan_requests: int = 100_000
    seeds: int = 3
    threads: int = 0
    bisection: Bisection = field(default_factory=Bisection)


@dataclass(frozen=True, slots=True)
class Problem:
    """Which model, on which cluster, for which workload and SLOs.

    `sources` has the costs by kind of GPU. Given a `rate`, the fewest GPUs (or the least price)
    that serve it are sought; else the highest rate on at most `gpus` GPUs, by default all. No
    instance has more tensor or pipeline ranks than `max_tp` and `max_pp`.
    """

    sources: Mapping[str, LatencySource]
    cluster: Cluster
    workload: Workload
    slo: Slo
    rate: float | None = None
    gpus: int | None = None
    max_tp: int | None = None
    max_pp: int | None = None
    max_batch_seqs: int = 256
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        for name, value in (("max_tp", self.max_tp), ("max_pp", self.max_pp)):
            if value is not None and value < 1:
                raise ConfigError(
                    f"{name} is {value}; it must be at least 1", field=name, limit=">= 1"
                )
        missing = sorted(set(self.cluster.kinds) - set(self.sources))
        if missing:
            raise ConfigError(f"there are no costs for {missing[0]}", field="profile")
        if self.rate is not None and not self.rate > 0:
            raise ConfigError(f"rate is {self.rate}; it must be above 0", field="rate", limit="> 0")
        if self.gpus is not None and not 1 <= self.gpus <= self.cluster.gpus:
            limit = f"[1, {self.cluster.gpus}]"
            raise ConfigError(
                f"gpus is {self.gpus}; it must lie in {limit}", field="gpus", limit=limit
            )

    @property
    def model(self) -> str:
        """The model's name."""
        return next(iter(self.sources.values())).model

    @property
    def kv_bytes(self) -> int:
        """What a token's KV takes."""
        return next(iter(self.sources.values())).kv.bytes_per_token

    @property
    def mean_output(self) -> float:
        """The output that routing expects, in tokens."""
        return max(1.0, float(self.workload.output_tokens.mean()))

    @property
    def gpu_budget(self) -> int:
        """The most GPUs that a plan may take."""
        return self.gpus or self.cluster.gpus

    def cost(self, kind: str, tp: int, pp: int) -> InstanceCost:
        """An instance's costs on this kind of GPU."""
        return self.sources[kind].instance(tp, pp)

    def batching(self, kind: str) -> Batching:
        """How instances on this kind of GPU batch."""
        return Batching(self.sources[kind].policy, self.max_batch_seqs)

    def parallelisms(self, kind: str) -> list[tuple[int, int]]:
        """Every (TP, PP) that fits the cluster's nodes with this kind of GPU, and the bounds."""
        nodes = self.cluster.nodes_of(kind)
        largest = min(max(node.gpus for node in nodes), self.max_tp or math.inf)
        total = sum(node.gpus for node in nodes)
        return [
            (tp, pp)
            for tp, pp in self.sources[kind].parallelisms()
            if tp <= largest
            and pp <= (self.max_pp or math.inf)
            and tp * pp <= min(total, self.gpu_budget)
        ]

    def sample(self, requests: int) -> Workload:
        """The first so many requests."""
        return self.workload.take(slice(0, requests))

    def at_slo(self, slo: Slo) -> "Problem":
        """The same with other SLOs."""
        return replace(self, slo=slo)
