"""What is served, and the cluster as the router sees it."""

from dataclasses import dataclass

from pdserve.client.records import record_of
from pdserve.rpc.v1 import router_pb2, types_pb2

_ROLES = {types_pb2.ROLE_PREFILL: "prefill", types_pb2.ROLE_DECODE: "decode"}


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served; `ready`: a request for it can be placed now."""

    id: str
    context_length: int
    vocab_size: int
    ready: bool


@dataclass(frozen=True, slots=True)
class Blocks:
    """An instance's KV blocks by state."""

    free: int
    active: int
    cached: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Load:
    """What an instance last reported of itself; zeros while it has reported nothing."""

    waiting_requests: int
    running_requests: int
    decoding_requests: int
    waiting_tokens: int
    context_tokens: int
    transfers: int
    blocks: Blocks


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance. `role` is "prefill" or "decode", `state` "up", "draining", "silent", "down" or
    "connecting"; `detail` says in words why it is not up. `router_requests` are those that this
    router has on it. `incarnation` is empty before the first report, whose age is `report_age_s`.
    """

    name: str
    role: str
    address: str
    state: str
    detail: str
    incarnation: str
    report_age_s: float
    router_requests: int
    load: Load


@dataclass(frozen=True, slots=True)
class Link:
    """The way from a prefill to a decode instance, as far as the router has measured it.

    `distance` is "node", "clique", "rack", "zone" or "far"; `breaker` is "closed", "open" or
    "half_open". The bandwidth is assumed while there have been no `transfers`; `age_s` is since the
    last.
    """

    prefill: str
    decode: str
    distance: str
    bandwidth_bytes_per_s: float
    transfers: int
    age_s: float
    breaker: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """All instances, the links that have been used or have failed, and the router's own load.

    `discovery_problem` says why these may not be all the instances there are; it is mostly empty.
    """

    instances: tuple[Instance, ...]
    links: tuple[Link, ...]
    running_requests: int
    queued_requests: int
    discovery_problem: str


def models_of(message: router_pb2.ListModelsResponse) -> tuple[Model, ...]:
    """The models in a response."""
    return tuple(record_of(Model, each) for each in message.models)


def cluster_of(message: router_pb2.GetClusterResponse) -> Cluster:
    """The cluster in a response."""
    instances = tuple(_instance_of(each) for each in message.instances)
    links = tuple(record_of(Link, each) for each in message.links)
    return record_of(Cluster, message, {"instances": instances, "links": links})


def _instance_of(message: router_pb2.InstanceStatus) -> Instance:
    report = message.report
    given = {
        "role": _ROLES.get(message.role, ""),
        "incarnation": report.info.incarnation,
        "load": record_of(Load, report, {"blocks": record_of(Blocks, report.blocks)}),
    }
    return record_of(Instance, message, given)
