"""Metrics of prefill and decode instances: gauges read at scrape time, histograms as they occur."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pdserve.metrics import BYTES_BUCKETS, SECONDS_BUCKETS
from pdserve.rpc.v1 import types_pb2

Report = Callable[[], types_pb2.LoadReport]


class LoadCollector(Collector):
    """An instance's load report as gauges; costs nothing between scrapes."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        report = self._report()
        blocks = GaugeMetricFamily("pdserve_kv_blocks", "KV blocks by state", labels=["state"])
        for state in ("free", "active", "cached", "quarantined"):
            blocks.add_metric([state], getattr(report.blocks, state))
        yield blocks
        gauges = {
            "waiting_requests": "Requests that wait for blocks or budget",
            "running_requests": "Requests that have been admitted and have not ended",
            "waiting_tokens": "Prompt tokens that are still to be computed",
            "context_tokens": "Tokens in the KV cache of running sequences",
            "transfers": "KV transfers that have not ended",
            "channels": "Open KV channels",
            "leases": "KV that waits to be pulled",
        }
        for field, text in gauges.items():
            yield GaugeMetricFamily(f"pdserve_{field}", text, value=getattr(report, field))
        yield GaugeMetricFamily(
            "pdserve_step_age_seconds", "Age of the step in progress", value=report.step_age_s
        )
        yield GaugeMetricFamily(
            "pdserve_draining", "1 while the instance drains", value=report.draining
        )
        yield CounterMetricFamily("pdserve_steps", "Engine steps", value=report.steps)


class InstanceMetrics:
    """What happens to requests on an instance; `role` is part of every name."""

    def __init__(self, registry: CollectorRegistry, role: str) -> None:
        def seconds(name: str, text: str) -> Histogram:
            return Histogram(
                f"pdserve_{role}_{name}_seconds", text, buckets=SECONDS_BUCKETS, registry=registry
            )

        self.queue = seconds("queue", "From arrival until the blocks are allocated")
        self.compute = seconds("compute", "From admission until the first token")
        self.itl = seconds("itl", "Gap between two tokens of a sequence")
        self.transfer_wait = seconds("transfer_wait", "From admission until the first KV arrives")
        self.transfer = seconds("transfer", "From the first KV until the last")
        self.transfer_bytes = Histogram(
            f"pdserve_{role}_transfer_bytes",
            "KV moved for one request",
            buckets=BYTES_BUCKETS,
            registry=registry,
        )
        self.requests = Counter(
            f"pdserve_{role}_requests", "Requests by outcome", ["outcome"], registry=registry
        )
        self.tokens = Counter(
            f"pdserve_{role}_tokens", "Tokens by kind", ["kind"], registry=registry
        )
        self.preemptions = Counter(
            f"pdserve_{role}_preemptions", "Sequences that lost their blocks", registry=registry
        )
