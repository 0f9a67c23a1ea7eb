"""Fleets as plain data, for placers."""

import math
from collections.abc import Sequence
from dataclasses import replace

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.cluster.topology import Topology
from pdserve.config import RouterConfig
from pdserve.kv.layout import KvLayout
from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.rpc.v1 import types_pb2
from services.router.knowledge import Knowledge
from services.router.view import Candidate, FleetView, Limits, Load, Work

# 1,024 bytes a token.
LAYOUT = KvLayout("f", "float32", 4, 4, 8, 16)
# A prompt of 1,000 tokens takes 110 ms, a step of 10 sequences with 10,000 tokens 21 ms.
COST = InstanceCost(
    tp=1,
    pp=1,
    prefill=PrefillCost(0.01, 1e-4, 0.0),
    decode=DecodeCost(0.01, 1e-7, 1e-3),
    decode_large=DecodeCost(0.01, 1e-7, 1e-3),
    large_from=1 << 30,
    kv_tokens=1,
)
NOW = 1000.0


class Members:
    """A fleet that knows itself: every candidate has joined `knowledge`."""

    def __init__(self, **options) -> None:
        self.knowledge = Knowledge(RouterConfig(**options))
        self.prefill: list[Candidate] = []
        self.decode: list[Candidate] = []

    def add_prefill(self, name: str, tokens: int = 0, **fields) -> Candidate:
        """An instance with so many tokens queued, of the normal class unless `reported` says."""
        reported = fields.pop("reported", (Work(), Work(tokens, 0.0), Work()))
        load = Load(int(tokens > 0), tokens, reported=reported, dispatched=_dispatched(fields))
        return self._add(Role.PREFILL, self.prefill, name, load, fields)

    def add_decode(
        self, name: str, decoding: int = 20, context: int = 20_000, **fields
    ) -> Candidate:
        """An instance that decodes so many sequences: too many to compute a long prompt as well."""
        load = Load(
            decoding,
            context,
            decoding,
            waiting_tokens=fields.pop("waiting", 0),
            free_tokens=fields.pop("free", math.inf),
            tpot_limit_s=fields.pop("tpot_limit_s", 0.0),
        )
        return self._add(Role.DECODE, self.decode, name, load, fields)

    def holds(self, candidate: Candidate, names: Sequence[int]) -> None:
        """The candidate has these blocks in its prefix cache."""
        role = Role.PREFILL if candidate in self.prefill else Role.DECODE
        changes = types_pb2.CacheChanges(added=names)
        self.knowledge.cached(role, candidate.incarnation, changes)

    def link(self, prefill: str, decode: str, bytes_per_s: float) -> None:
        """The pair has moved a lot at this speed."""
        size = 1 << 34
        self.knowledge.links.observe(life(prefill), life(decode), size, size / bytes_per_s)

    @property
    def view(self) -> FleetView:
        return FleetView(tuple(self.prefill), tuple(self.decode), ("decode-9 is down (refused)",))

    def _add(self, role, side, name: str, load: Load, fields) -> Candidate:
        place = fields.pop("place", Topology(node="n"))
        candidate = Candidate(
            name=name,
            incarnation=life(name),
            layout=LAYOUT,
            max_model_len=0,
            load=load,
            reported_at=NOW,
            limits=Limits(batch_tokens=1 << 20, batch_seqs=256, layer_groups=1),
            cost=COST,
        )
        candidate = replace(candidate, **fields)
        address = InstanceAddress(role, "127.0.0.1:1", name, place)
        self.knowledge.join(address, candidate.incarnation)
        side.append(candidate)
        return candidate


def _dispatched(fields):
    return fields.pop("dispatched", (Work(), Work(), Work()))


def life(name: str) -> str:
    """The incarnation of the instance with this name."""
    return f"life of {name}"
