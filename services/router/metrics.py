"""What the router counts and measures."""

import asyncio
import functools
from collections import Counter as Counts
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pdserve.cluster.instance import Role
from pdserve.errors import PdserveError
from pdserve.metrics import SECONDS_BUCKETS
from services.router.watcher import State


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
        self._running = Gauge(
            "pdserve_router_running_requests", "Requests that run now", registry=registry
        )
        self._instances = Gauge(
            "pdserve_router_instances", "Instances", ("role", "state"), registry=registry
        )

    @contextmanager
    def request(self) -> Iterator[RequestOutcome]:
        """Counts one request; whoever runs it says how it ended, else the exception does."""
        outcome = RequestOutcome()
        self._running.inc()
        try:
            yield outcome
        except PdserveError as error:
            outcome.label = error.reason
            raise
        except (asyncio.CancelledError, ClientGoneError):
            outcome.label = "cancelled"
            raise
        finally:
            self._running.dec()
            self._requests.labels(outcome.label).inc()

    def attempt(self, rung: str) -> None:
        """Counts a placement; `rung` is "reject" where there is none."""
        self._attempts.labels(rung).inc()

    def retry(self, cause: str) -> None:
        """Counts an attempt that failed."""
        self._retries.labels(cause).inc()

    def watch_instances(self, count: Callable[[], Counts[tuple[Role, State]]]) -> None:
        """Reports what `count` returns whenever the metrics are read, on another thread."""
        for role in Role:
            for state in State:
                gauge = self._instances.labels(role, state)
                gauge.set_function(functools.partial(_count_of, count, role, state))


def _count_of(count: Callable[[], Counts[tuple[Role, State]]], role: Role, state: State) -> float:
    return count()[role, state]
