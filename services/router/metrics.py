"""What the router counts and measures."""

import asyncio
import functools
from collections import Counter as Counts
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pdserve.cluster.instance import Role
from pdserve.errors import OverloadedError, PdserveError
from pdserve.key_limits import PRIORITIES
from pdserve.metrics import SECONDS_BUCKETS
from pdserve.rpc.v1 import types_pb2
from services.router.breakers import BreakerState
from services.router.watcher import State

_T = TypeVar("_T", bound=Hashable)


Priority: TypeAlias = types_pb2.Priority.ValueType

# As labels say them.
_PRIORITIES = {priority: name for name, priority in PRIORITIES.items()}
# What a refused request exceeded, by the field of the error. Other errors come from instances.
_LIMITS = {
    "requests_per_minute": "requests_per_minute",
    "tokens_per_minute": "tokens_per_minute",
    "concurrent": "concurrent",
    "max_queued": "max_queued",
    "slo.ttft_ms": "slo",
    "slo.tpot_ms": "slo",
}
_INSTANCES = "instances"


class ClientGoneError(Exception):
    """The client has closed its connection, or reads nothing any more."""


@dataclass(slots=True)
class RequestOutcome:
    """How a request ended, as a label."""

    label: str = "internal"


class RouterMetrics:
    """The router's metrics, registered in `registry`; durations are in seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str) -> Histogram:
            name = f"pdserve_router_{name}_seconds"
            return Histogram(name, text, registry=registry, buckets=SECONDS_BUCKETS)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"pdserve_router_{name}", text, labels, registry=registry)

        self.ttft = histogram("ttft", "Received until the first token was handed to the client")
        self.itl = histogram("itl", "Gap between one message of tokens and the next")
        self.tpot = histogram("tpot", "Mean gap between the tokens of a request after its first")
        self.queue = histogram("queue", "Received until sent to an instance")
        self.e2e = histogram("e2e", "Received until the end of the request")
        self.tokens = counter("tokens", "Output tokens handed over to clients")
        self._requests = counter("requests", "Requests by how they ended", "outcome")
        self._attempts = counter("attempts", "Placements by rung of the ladder", "rung")
        self._retries = counter("retries", "Attempts that failed, by cause", "cause")
        self._refused = counter(
            "retries_refused", "Requests that failed for want of another attempt", "why"
        )
        self._canaries = counter("canaries", "Hand-offs tried for their own sake", "outcome")
        self._breakers = Gauge(
            "pdserve_router_breakers", "Pairs that are not used", ("state",), registry=registry
        )
        self._refusals = counter(
            "refused", "Requests that were refused for load, by limit", "limit"
        )
        self._running = Gauge(
            "pdserve_router_running_requests", "Requests that run now", registry=registry
        )
        self._queued = Gauge(
            "pdserve_router_queued_requests",
            "Requests that wait at the router for their turn",
            ("priority",),
            registry=registry,
        )
        self._waits = Histogram(
            "pdserve_router_admission_seconds",
            "How long requests waited at the router for their turn",
            ("priority",),
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._instances = Gauge(
            "pdserve_router_instances", "Instances", ("role", "state"), registry=registry
        )

    @contextmanager
    def request(self) -> Iterator[RequestOutcome]:
        """Counts one request; whoever runs it says how it ended, else the exception does."""
        outcome = RequestOutcome()
        try:
            yield outcome
        except PdserveError as error:
            outcome.label = error.reason
            if isinstance(error, OverloadedError):
                self._refusals.labels(_LIMITS.get(error.field, _INSTANCES)).inc()
            raise
        except (asyncio.CancelledError, ClientGoneError):
            outcome.label = "cancelled"
            raise
        finally:
            self._requests.labels(outcome.label).inc()

    def admitted(self, priority: Priority, waited_s: float) -> None:
        """Notes a request whose turn has come."""
        self._waits.labels(_PRIORITIES[priority]).observe(waited_s)

    def watch_gate(self, running: Callable[[], int], waiting: Callable[[Priority], int]) -> None:
        """Reports what the two return whenever the metrics are read, on another thread."""
        self._running.set_function(running)
        for priority, name in _PRIORITIES.items():
            self._queued.labels(name).set_function(functools.partial(waiting, priority))

    def attempt(self, rung: str) -> None:
        """Counts a placement; `rung` is "reject" where there is none."""
        self._attempts.labels(rung).inc()

    def retry(self, cause: str) -> None:
        """Counts an attempt that failed."""
        self._retries.labels(cause).inc()

    def retry_refused(self, why: str) -> None:
        """Counts a request that gets no further attempt: "attempts", "budget" or "poison"."""
        self._refused.labels(why).inc()

    def canary(self, outcome: str) -> None:
        """Counts a canary."""
        self._canaries.labels(outcome).inc()

    def watch_breakers(self, count: Callable[[], Counts[BreakerState]]) -> None:
        """Reports what `count` returns whenever the metrics are read, on another thread."""
        for state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            self._breakers.labels(state).set_function(functools.partial(_count_of, count, state))

    def watch_instances(self, count: Callable[[], Counts[tuple[Role, State]]]) -> None:
        """Reports what `count` returns whenever the metrics are read, on another thread."""
        for role in Role:
            for state in State:
                gauge = self._instances.labels(role, state)
                gauge.set_function(functools.partial(_count_of, count, (role, state)))


def _count_of(count: Callable[[], Counts[_T]], key: _T) -> float:
    return count()[key]
