"""The order in which waiting requests get their turn: fair between clients, by class within one.

Between clients it is that of the virtual token counter (Sheng et al., "Fairness in Serving Large
Language Models", OSDI 2024, algorithm 2): each client's counter grows by the tokens that it is
served, divided by its weight, and the client with the least counter is next. A client that comes
after a pause begins where the others are, so that nobody saves up turns. Unlike deficit round
robin (Shreedhar and Varghese, SIGCOMM 1995) this need not know beforehand how long an output
becomes: a prompt counts when its request begins, an output as it is produced. Of two clients that
both have requests waiting, neither is served more, for its weight, than the other by more than
the tokens of what it may run at once.
"""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from pdserve.rpc.v1 import types_pb2

Priority: TypeAlias = types_pb2.Priority.ValueType

# A class is a head start over requests of the same client, not a right: what has waited for so
# much longer goes first whatever its class.
HEAD_START_S = MappingProxyType(
    {types_pb2.PRIORITY_LOW: 0.0, types_pb2.PRIORITY_NORMAL: 10.0, types_pb2.PRIORITY_HIGH: 20.0}
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who wants to run, and what decides when.

    `tokens` are those of the prompt. `start_by` is when it must have begun, on the monotonic clock.
    """

    client: str
    weight: float
    priority: Priority
    tokens: int
    start_by: float = math.inf


class Entry:
    """A request that waits or has had its turn; compared by identity."""

    def __init__(self, ticket: Ticket, flow: "_Flow", place: tuple[float, int]) -> None:
        self.ticket = ticket
        self.flow = flow
        # The least comes first among those of its client.
        self.place = place


@dataclass(slots=True)
class _Flow:
    """What a client has been served, and its requests that wait: a line for each class."""

    client: str
    counter: float
    weight: float = 1.0
    lines: dict[Priority, OrderedDict[int, Entry]] = field(
        default_factory=lambda: {priority: OrderedDict() for priority in HEAD_START_S}
    )

    @property
    def waiting(self) -> int:
        return sum(map(len, self.lines.values()))

    def entries(self) -> list[Entry]:
        return [entry for line in self.lines.values() for entry in line.values()]

    def first(self) -> Entry:
        heads = (next(iter(line.values())) for line in self.lines.values() if line)
        return min(heads, key=lambda entry: entry.place)

    def last(self) -> Entry:
        tails = (next(reversed(line.values())) for line in self.lines.values() if line)
        return max(tails, key=lambda entry: entry.place)


class FairQueue:
    """Requests that wait. What a call costs grows with the clients that wait, and nothing else.

    Clients are remembered; there are as many as API keys have been shown.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._flows: dict[str, _Flow] = {}
        # The same flows, of which something waits.
        self._backlogged: dict[str, _Flow] = {}
        # The counter at which somebody was last served; all that wait are at it or beyond.
        self._virtual_time = 0.0
        self._waiting = dict.fromkeys(HEAD_START_S, 0)

    def __len__(self) -> int:
        return sum(self._waiting.values())

    def waiting(self, priority: Priority) -> int:
        """How many of a class wait."""
        return self._waiting[priority]

    def push(self, ticket: Ticket) -> Entry:
        """A request begins to wait."""
        flow = self._flows.get(ticket.client)
        if flow is None:
            flow = self._flows[ticket.client] = _Flow(ticket.client, self._virtual_time)
        flow.weight = ticket.weight
        if ticket.client not in self._backlogged:
            flow.counter = max(flow.counter, self._virtual_time)
            self._backlogged[ticket.client] = flow
        number = next(self._numbers)
        entry = Entry(ticket, flow, (self._clock() - HEAD_START_S[ticket.priority], number))
        flow.lines[ticket.priority][number] = entry
        self._waiting[ticket.priority] += 1
        return entry

    def pop(self) -> Entry:
        """The request whose turn it is; there is one."""
        flow = min(self._backlogged.values(), key=lambda flow: flow.counter)
        entry = flow.first()
        self._virtual_time = flow.counter
        self.remove(entry)
        self.charge(entry, entry.ticket.tokens)
        return entry

    def charge(self, entry: Entry, tokens: int) -> None:
        """The request has been served `tokens`."""
        entry.flow.counter += tokens / entry.flow.weight

    def remove(self, entry: Entry) -> None:
        """The request does not wait any more."""
        priority = entry.ticket.priority
        del entry.flow.lines[priority][entry.place[1]]
        self._waiting[priority] -= 1
        if not entry.flow.waiting:
            del self._backlogged[entry.flow.client]

    def least_entitled(self) -> Entry:
        """The request that must go where there is one too many.

        Of the client with most requests here for its weight, the one that would be served last; of
        clients with as many, of the one that has been served more.
        """
        flow = max(
            self._backlogged.values(), key=lambda flow: (flow.waiting / flow.weight, flow.counter)
        )
        return flow.last()

    def entries(self) -> list[Entry]:
        """All that wait."""
        return [entry for flow in self._backlogged.values() for entry in flow.entries()]
