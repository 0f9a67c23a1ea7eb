"""The simulator's door: a deployment and a workload go in, what every request saw comes out."""

import math
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from pdserve.errors import ConfigError
from pdserve.latency.cost import InstanceCost
from pdserve.planner.simulator import state
from pdserve.planner.simulator.kernel import run
from pdserve.planner.simulator.links import Links
from pdserve.planner.simulator.policy import PDSERVE, Policy
from pdserve.planner.simulator.prefix_cache import new_prefix_cache
from pdserve.planner.simulator.result import InstanceUse, Result
from pdserve.planner.simulator.tables import new_table, record_type
from pdserve.planner.slo import Slo
from pdserve.workload.workload import Workload

_ROLES = {"prefill": state.PREFILL, "decode": state.DECODE, "both": state.BOTH}
_SLICES = 240


@dataclass(frozen=True, slots=True)
class SimulatedInstance:
    """One instance: `role` is prefill, decode or both (colocated).

    Prefill hands KV to decode instances of its `group` only.
    """

    role: str
    cost: InstanceCost
    policy: Policy = PDSERVE
    group: int = 0

    @property
    def kv_blocks(self) -> int:
        """KV blocks that it holds."""
        return self.cost.kv_tokens // self.policy.block_size

    def holds(self, workload: Workload) -> state.Array:
        """Which requests it can hold, `[requests]`, until its phase is done with them."""
        if not self.policy.kv_limit:
            return workload.prompt_tokens <= self.cost.kv_tokens
        outputs = 0 if self.role == "prefill" else workload.output_tokens
        return workload.prompt_tokens + outputs <= self.kv_blocks * self.policy.block_size


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is simulated. `links` are between the instances, in their order.

    A token's KV takes `kv_bytes`. KV leaves prefill in `layer_groups` pieces, each when its layers
    are computed. `output_tokens` is the output that routing expects.
    """

    instances: Sequence[SimulatedInstance]
    links: Links
    kv_bytes: float
    layer_groups: int = 6
    output_tokens: float = 128.0

    def __post_init__(self) -> None:
        if not self.instances:
            raise ConfigError("a deployment needs at least one instance", field="instances")
        receivers = {each.group for each in self.instances if each.role == "decode"}
        for each in self.instances:
            if each.role == "prefill" and each.group not in receivers:
                raise ConfigError(
                    f"prefill instances of group {each.group} have no decode instance to hand "
                    "KV to",
                    field="decode",
                )
        if all(each.role == "decode" for each in self.instances):
            raise ConfigError("no instance prefills", field="prefill")

    @property
    def gpus(self) -> int:
        """GPUs of all instances."""
        return sum(instance.cost.gpus for instance in self.instances)


def simulate(
    deployment: Deployment, workload: Workload, slo: Slo, *, stop_early: bool = False
) -> Result:
    """What each request of `workload` sees on `deployment`.

    A request that no instance can hold is refused, and attains nothing. With `stop_early` the
    simulation ends once more requests have missed an SLO than `slo.attainment` allows; the rest of
    the result is worth nothing then.
    """
    able = _able(deployment, workload)
    entries = [kind for each, kind in _kinds(deployment).items() if each.role != "decode"]
    served = np.flatnonzero(able[entries].any(axis=0))
    refused = len(workload) - len(served)
    allowed = len(workload)
    if stop_early:
        # A hair above, so that 90 % of 10 requests are 9 of them.
        allowed = math.floor((1 - slo.attainment) * len(workload) + 1e-9) - refused
    world = _world(deployment, workload, able, served, slo, allowed)
    began = time.perf_counter()
    end_s = run(world)
    wall_s = time.perf_counter() - began
    return _result(workload, served, world, end_s, wall_s)


def _kinds(deployment: Deployment) -> dict[SimulatedInstance, int]:
    """The different instances, numbered."""
    return {each: kind for kind, each in enumerate(dict.fromkeys(deployment.instances))}


def _able(deployment: Deployment, workload: Workload) -> state.Array:
    """Whose KV an instance of each kind can hold and hand on, `[kinds, requests]`."""
    kinds = _kinds(deployment)
    able = np.array([kind.holds(workload) for kind in kinds])
    for kind, row in kinds.items():
        if kind.role == "prefill":
            receivers = [
                kinds[other]
                for other in kinds
                if other.role == "decode" and other.group == kind.group
            ]
            able[row] &= able[receivers].any(axis=0)
    return able


def _world(
    deployment: Deployment,
    workload: Workload,
    able: state.Array,
    served: state.Array,
    slo: Slo,
    allowed: int,
) -> state.World:
    instances, links = deployment.instances, deployment.links
    count = len(served)
    # Without a limit of memory nobody waits to be admitted, so that all may be there at once.
    limited = all(each.policy.kv_limit for each in instances)
    most = max(each.policy.max_batch_seqs for each in instances) if limited else count
    slots = max(1, min(count, most))
    table = _instances(deployment, workload)
    link_table = new_table(state.Link, len(links.bytes_per_s))
    link_table["bytes_per_s"] = links.bytes_per_s
    run_table = new_table(state.Run, 1)
    run_table["ttft_s"], run_table["tpot_s"] = slo.ttft_s, slo.tpot_s
    run_table["allowed_misses"] = allowed
    run_table["kv_bytes"] = deployment.kv_bytes
    run_table["tail"] = 1.0 / deployment.layer_groups
    run_table["link_latency_s"] = links.latency_s
    run_table["output_tokens"] = deployment.output_tokens
    run_table["prefix_block"] = workload.prefix.block_tokens if workload.prefix else 1
    run_table["slice_s"] = max(1.5 * workload.duration_s, 1.0) / _SLICES
    run_table["left"] = count
    return state.World(
        requests=_requests(workload)[served],
        instances=table,
        able=np.ascontiguousarray(able[:, served]),
        lists=np.zeros((len(instances), state.LISTS, slots), np.int64),
        order=np.zeros(slots, np.int64),
        stage_free_s=np.zeros((len(instances), max(each.cost.pp for each in instances))),
        links=link_table,
        transfers=new_table(state.Transfer, count),
        prefix_ids=np.array(workload.prefix.ids if workload.prefix else (), np.int64),
        prefix_cache=new_prefix_cache(len(instances), int(table["prefix_capacity"].max())),
        timeline=np.zeros((len(instances), _SLICES), record_type(state.Moment)),
        run=run_table,
    )


def _requests(workload: Workload) -> state.Array:
    table = new_table(state.Request, len(workload))
    table["arrival_s"] = workload.arrival_s - workload.arrival_s[0]
    table["prompt"] = workload.prompt_tokens
    table["output"] = workload.output_tokens
    if workload.prefix:
        table["prefix_begin"] = workload.prefix.offsets[:-1]
        table["prefix_end"] = workload.prefix.offsets[1:]
    for name in ("prefill_on", "decode_on", "behind"):
        table[name] = state.NOBODY
    for name in ("started_s", "first_s", "admitted_s", "ready_s", "finished_s"):
        table[name] = np.nan
    return table


def _instances(deployment: Deployment, workload: Workload) -> state.Array:
    links = deployment.links
    kinds = _kinds(deployment)
    table = new_table(state.Instance, len(deployment.instances))
    for row, each in zip(table, deployment.instances, strict=True):
        row["cost"] = astuple(each.cost)
        row["policy"] = astuple(each.policy)
        row["role"] = _ROLES[each.role]
        row["group"] = each.group
        row["kind"] = kinds[each]
        row["kv_blocks"] = row["free_blocks"] = each.kv_blocks
        if workload.prefix and each.policy.kv_limit:
            row["prefix_capacity"] = each.cost.kv_tokens // workload.prefix.block_tokens
    table["outward"], table["inward"], table["place"] = links.outward, links.inward, links.place
    return table


def _result(
    workload: Workload, served: state.Array, world: state.World, end_s: float, wall_s: float
) -> Result:
    """The columns of all requests, in the order of the workload."""
    seen = np.asarray(world.requests)
    run_row = np.asarray(world.run)[0]

    def column(values: state.Array, missing: float = np.nan) -> state.Array:
        whole = np.full(len(workload), missing, values.dtype)
        whole[served] = values
        return whole

    policy = np.asarray(world.instances)["policy"][0]
    gaps = np.maximum(1, seen["output"] - (0 if policy["first_token_decoded"] else 1))
    return Result(
        ttft_s=column(seen["first_s"] - seen["arrival_s"]),
        tpot_s=column((seen["finished_s"] - seen["first_s"]) / gaps),
        queue_s=column(seen["started_s"] - seen["arrival_s"]),
        handoff_s=column(np.maximum(0.0, seen["ready_s"] - seen["first_s"])),
        admission_s=column(np.maximum(0.0, seen["admitted_s"] - seen["first_s"])),
        finished_s=column(seen["finished_s"] + workload.arrival_s[0]),
        preemptions=column(seen["preemptions"], 0),
        cached_tokens=column(seen["cached"], 0),
        prefill_on=column(seen["prefill_on"], state.NOBODY),
        decode_on=column(seen["decode_on"], state.NOBODY),
        refused=len(workload) - len(served),
        stopped_early=bool(run_row["left"] > 0),
        slice_s=float(run_row["slice_s"]),
        instances=tuple(_use(world, i, end_s) for i in range(len(world.instances))),
        sent_bytes=np.asarray(world.links)["sent_bytes"],
        end_s=end_s,
        wall_s=wall_s,
    )


def _use(world: state.World, i: int, end_s: float) -> InstanceUse:
    instance, timeline = np.asarray(world.instances)[i], world.timeline[i]
    requests = np.asarray(world.requests)
    kv_used = timeline["kv_blocks"] / max(1, int(instance["kv_blocks"]))
    return InstanceUse(
        busy=float(instance["busy_s"] / end_s) if end_s else 0.0,
        kv_peak=float(kv_used.max()),
        preemptions=int(requests["preemptions"][requests["decode_on"] == i].sum()),
        queued=timeline["queued"],
        running=timeline["running"],
        kv_used=kv_used,
    )
