"""What the router has learned of the fleet from its reports and from the requests so far."""

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.cluster.topology import Distance
from pdserve.config import RouterConfig
from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.latency.profile import Profile, read_profile
from pdserve.rpc.v1 import types_pb2
from services.router.links import Links
from services.router.placement.prediction import Habits
from services.router.placement.prefix_index import PrefixIndex

# Before any request has ended: a short answer.
_FIRST_HABITS = Habits(output_tokens=128.0, decode_s=5.0)
# Weight of the newest request in the averages.
_NEWEST = 0.02


class Knowledge:
    """The links between instances, the blocks that they cache, and what requests are like.

    Raises `ConfigError` where the latency profile of the configuration cannot be read.
    """

    def __init__(self, config: RouterConfig) -> None:
        priors = {
            distance: float(getattr(config, f"{distance}_bytes_per_s")) for distance in Distance
        }
        self.links = Links(priors, config.bandwidth_half_life_s)
        self.prefixes = {
            Role.PREFILL: PrefixIndex(self.links.prefills),
            Role.DECODE: PrefixIndex(self.links.decodes),
        }
        self.habits = _FIRST_HABITS
        self._profile: Profile | None = read_profile(config.profile) if config.profile else None

    def join(self, address: InstanceAddress, incarnation: str) -> None:
        """Makes room for what will be learned of an instance."""
        self.links.join(address.role, incarnation, address.place)

    def leave(self, role: Role, incarnation: str) -> None:
        """Forgets an instance."""
        self.prefixes[role].reset(incarnation)
        self.links.leave(role, incarnation)

    def cached(self, role: Role, incarnation: str, changes: types_pb2.CacheChanges) -> None:
        """Takes over what an instance says of its prefix cache."""
        index = self.prefixes[role]
        if changes.reset:
            index.reset(incarnation)
        index.remove(incarnation, changes.removed)
        index.add(incarnation, changes.added)

    def cost(self, report: types_pb2.LoadReport) -> InstanceCost | None:
        """What the passes of an instance cost: by the profile, else as it has learned; None: that
        is not known yet.
        """
        layout = report.info.layout
        if self._profile and (layout.tp, layout.pp) in self._profile.parallelisms():
            return self._profile.instance(layout.tp, layout.pp)
        return learned_cost(report)

    def ended(self, output_tokens: int, decode_s: float) -> None:
        """A request has had its last token, `decode_s` after its first."""
        old = self.habits
        self.habits = Habits(
            old.output_tokens + _NEWEST * (output_tokens - old.output_tokens),
            old.decode_s + _NEWEST * (decode_s - old.decode_s),
        )


def learned_cost(report: types_pb2.LoadReport) -> InstanceCost | None:
    """What an instance says that its passes cost; None while it does not know.

    What it has not done yet costs it nothing, as far as it says: prefill instances do not decode.
    """
    if not report.HasField("cost"):
        return None
    cost = report.cost
    decode = DecodeCost(
        cost.decode_base_s, cost.decode_per_context_token_s, cost.decode_per_sequence_s
    )
    return InstanceCost(
        tp=1,
        pp=1,
        prefill=PrefillCost(
            cost.prefill_base_s, cost.prefill_per_token_s, cost.prefill_per_square_s
        ),
        decode=decode,
        decode_large=decode,
        large_from=1 << 30,
        kv_tokens=sum((report.blocks.free, report.blocks.active, report.blocks.cached))
        * report.info.layout.block_size,
    )
