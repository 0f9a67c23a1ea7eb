"""The dashboard shows metrics that exist, with labels that they have."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from rendering import of_kind, render

from pdserve.instance.metrics import InstanceMetrics, LoadCollector
from pdserve.rpc.v1 import types_pb2
from services.router.metrics import RouterMetrics

# Labels that Prometheus adds to what it reads from a pod.
FROM_PODS = {"namespace", "pod"}
RELEASE_LABEL = "app_kubernetes_io_instance"
ON = {"dashboard": {"enabled": True}, "slo": {"ttft_ms": 500, "attainment": 0.95}}


def metrics() -> dict[str, set[str]]:
    """The labels of every time series of instances and router, by name."""
    registry = CollectorRegistry()
    registry.register(LoadCollector(types_pb2.LoadReport))
    for role in ("prefill", "decode"):
        InstanceMetrics(registry, role)
    RouterMetrics(registry)
    labels = _labels_of_children(registry)
    series: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
        # What has labels has no samples before something happens.
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}
        for suffix in suffixes.get(family.type, ("",)):
            found = series.setdefault(f"{family.name}{suffix}", set())
            found |= labels.get(family.name, set()) | ({"le"} if suffix == "_bucket" else set())
    return series


def _labels_of_children(registry: CollectorRegistry) -> dict[str, set[str]]:
    collectors = registry._collector_to_names
    return {
        each._name: set(each._labelnames) for each in collectors if hasattr(each, "_labelnames")
    }


def dashboard(values: dict[str, Any] | None = None) -> dict[str, Any]:
    [config] = of_kind(render({**ON, **(values or {})}), "ConfigMap").values()
    return dict(json.loads(config["data"]["pdserve.json"]))


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel["targets"])


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    return metrics()


def test_every_metric_exists(known: dict[str, set[str]]) -> None:
    used = {name for each in expressions() for name in re.findall(r"pdserve_\w+", each)}
    assert len(used) > 20
    assert used <= set(known)


def test_every_label_exists(known: dict[str, set[str]]) -> None:
    for expression in expressions():
        labels = set().union(*(known[name] for name in re.findall(r"pdserve_\w+", expression)))
        grouped = re.findall(r"by \(([^)]*)\)", expression)
        wanted = {label.strip() for each in grouped for label in each.split(",")}
        assert wanted <= labels | FROM_PODS, expression


def test_legends_name_labels_that_are_left() -> None:
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            left = {label.strip() for each in grouped for label in each.split(",")}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= left


def test_two_releases_have_two_dashboards_that_show_their_own() -> None:
    boards = [dashboard(), dashboard({"fullnameOverride": "other"})]
    assert len({each["uid"] for each in boards}) == 2
    assert boards[0]["title"] == "pdserve: llm/rel"
    variables = {each["name"]: each for each in boards[0]["templating"]["list"]}
    assert variables["release"]["current"]["value"] == "rel"
    assert RELEASE_LABEL in variables["release"]["query"]
    for expression in expressions():
        series = re.findall(r"pdserve_\w+(\{[^}]*\})", expression)
        assert series or expression.startswith("vector(")
        assert all(f'{RELEASE_LABEL}="$release"' in each for each in series)
    # Prometheus knows the label by the PodMonitor.
    [monitor] = of_kind(render({"podMonitor": {"enabled": True}}), "PodMonitor").values()
    labels = [re.sub(r"\W", "_", each) for each in monitor["spec"]["podTargetLabels"]]
    assert RELEASE_LABEL in labels


def test_objectives_are_those_of_the_values() -> None:
    text = json.dumps(dashboard())
    assert "histogram_quantile(0.95, " in text
    assert "vector(0.5) > 0" in text
    assert "vector(0) > 0" in text  # no bound of TPOT: no line
    assert not re.search(r"QUANTILE|_BOUND_S", text)


def test_autoscalers_count_metrics_that_exist(known: dict[str, set[str]]) -> None:
    values = {"instances": {"autoscaling": {"enabled": True}}}
    scalers = of_kind(render(values), "HorizontalPodAutoscaler")
    names = {
        metric["pods"]["metric"]["name"]
        for scaler in scalers.values()
        for metric in scaler["spec"]["metrics"]
    }
    assert names == {"pdserve_waiting_tokens", "pdserve_running_requests"}
    assert names <= set(known)
