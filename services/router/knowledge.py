"""What the router has learned of the fleet from its reports and from the requests so far."""

import math

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.cluster.topology import Distance
from pdserve.config import RouterConfig
from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.latency.online import LearnedCost, instance_cost
from pdserve.latency.profile import Profile, read_profile
from pdserve.rpc.v1 import types_pb2
from services.router.links import Links
from services.router.placement.prediction import Habits
from services.router.placement.prefix_index import PrefixIndex

# Before any request has ended: a short answer.
_FIRST_HABITS = Habits(output_tokens=128.0, decode_s=5.0)
# Nobody has computed a prompt yet: decode is not asked to.
_NEVER = PrefillCost(math.inf, 0.0, 0.0)
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
        # What prefill costs lately, wherever it was learned: decode instances seldom do it.
        self._prefill = _NEVER

    def knows(self, role: Role, incarnation: str) -> bool:
        """Whether an instance has joined."""
        return incarnation in (self.links.prefills if role is Role.PREFILL else self.links.decodes)

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

    def cost(self, role: Role, report: types_pb2.LoadReport) -> InstanceCost | None:
        """What the passes of an instance cost: by the profile, else as it has learned; None: what
        its role does is not known yet.
        """
        layout = report.info.layout
        if self._profile and (layout.tp, layout.pp) in self._profile.parallelisms():
            return self._profile.instance(layout.tp, layout.pp)
        cost = report.cost
        if cost.prefill_steps:
            self._prefill = PrefillCost(
                cost.prefill_base_s, cost.prefill_per_token_s, cost.prefill_per_square_s
            )
        steps = cost.prefill_steps if role is Role.PREFILL else cost.decode_steps
        return _learned(cost, self._prefill) if steps else None

    def ended(self, output_tokens: int, decode_s: float) -> None:
        """A request has had its last token, `decode_s` after its first."""
        old = self.habits
        self.habits = Habits(
            old.output_tokens + _NEWEST * (output_tokens - old.output_tokens),
            old.decode_s + _NEWEST * (decode_s - old.decode_s),
        )


def _learned(cost: types_pb2.LearnedCost, prefill: PrefillCost) -> InstanceCost:
    decode = DecodeCost(
        cost.decode_base_s, cost.decode_per_context_token_s, cost.decode_per_sequence_s
    )
    learned = LearnedCost(prefill, decode, cost.prefill_steps, cost.decode_steps)
    # How much KV fits is told by the load report.
    return instance_cost(learned, kv_tokens=1)
