"""Options reach the processes as they stand in the values: their own parsers say so."""

import argparse
import dataclasses
import json
from typing import Any

import pytest
from everything import SETS
from rendering import EXAMPLES, Manifest, container, example, pod_templates, render

from pdserve.cli import generate
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.models.source import BUILT_IN
from pdserve.options import add_options, load
from scripts.generate_chart_schema import SCHEMA, SET_BY_CHART, updated

CASES = {**{name: example(name) for name in EXAMPLES}, **SETS}
DOWNWARD = {"metadata.name": "pod-1", "status.podIP": "10.1.2.3"}


def environment(pod: Manifest) -> dict[str, str]:
    """The variables of a pod's container, with what Kubernetes would fill in."""

    def value(variable: dict[str, Any]) -> str:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            return DOWNWARD[source["fieldRef"]["fieldPath"]]
        return str(variable.get("value", "secret"))

    return {each["name"]: value(each) for each in container(pod)["env"]}


def configuration(pod: Manifest) -> InstanceConfig | RouterConfig:
    """What the process of a pod would run with."""
    role, *flags = container(pod)["args"]
    config = RouterConfig if role == "router" else InstanceConfig
    parser = argparse.ArgumentParser()
    add_options(parser, config)
    return load(config, parser.parse_args(flags), environment(pod))


def pods(values: dict[str, Any]) -> dict[str, Manifest]:
    templates = pod_templates(render(values))
    return {name: pod for name, pod in templates.items() if not name.endswith("test")}


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_every_process_understands_its_arguments_and_its_environment(
    values: dict[str, Any],
) -> None:
    for pod in pods(values).values():
        config = configuration(pod)
        assert config.model == values.get("model", "smollm2-135m-instruct")
        assert config.name == "pod-1"
        assert (config.port, config.metrics_port) == (7700, 9700)
        if isinstance(config, InstanceConfig):
            assert config.advertise_host == "10.1.2.3"
            gpus = container(pod)["resources"].get("limits", {}).get("nvidia.com/gpu", 0)
            assert config.device == ("cuda" if gpus else "cpu")


def test_what_is_nearer_to_a_pool_wins_and_the_rest_is_merged() -> None:
    values = {
        "instances": {"config": {"block_size": 8, "max_waiting": 10, "log_level": "debug"}},
        "prefill": {
            "defaults": {"config": {"max_waiting": 20, "lease_s": 5}},
            "pools": [
                {"name": "a", "replicas": 1, "config": {"lease_s": 7.5}},
                {"name": "b", "replicas": 1, "config": {"block_size": 32}},
            ],
        },
    }
    templates = pods(values)

    def options(name: str) -> tuple[Any, ...]:
        config = configuration(templates[f"rel-pdserve-{name}"])
        assert isinstance(config, InstanceConfig)
        return config.block_size, config.max_waiting, config.lease_s, config.log_level

    assert options("a") == (8, 20, 7.5, "debug")
    assert options("b") == (32, 20, 5, "debug")
    assert options("decode-0") == (8, 10, 10, "debug")


@pytest.mark.parametrize("number", [1 << 33, 123456789012, 1e15, 3.5e9, 1])
def test_numbers_arrive_whole(number: float) -> None:
    values = {"instances": {"config": {"kv_memory_bytes": int(number)}}}
    values["router"] = {"config": {"far_bytes_per_s": number}}
    templates = pods(values)
    decode = configuration(templates["rel-pdserve-decode-0"])
    router = configuration(templates["rel-pdserve-router"])
    assert isinstance(decode, InstanceConfig)
    assert isinstance(router, RouterConfig)
    assert decode.kv_memory_bytes == int(number)
    assert router.far_bytes_per_s == number


def test_objectives_go_to_the_router() -> None:
    router = configuration(pods({"slo": {"ttft_ms": 250, "tpot_ms": 12.5}})["rel-pdserve-router"])
    assert isinstance(router, RouterConfig)
    assert (router.slo_ttft_ms, router.slo_tpot_ms) == (250, 12.5)


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_the_test_pod_is_a_client_that_there_is(values: dict[str, Any]) -> None:
    manifests = render(values)
    command, *flags = container(pod_templates(manifests)["rel-pdserve-test"])["args"]
    parser = argparse.ArgumentParser()
    generate.add_flags(parser)
    arguments = parser.parse_args(flags)
    assert command == "generate"
    assert arguments.router == "rel-pdserve-router:7700"
    router = configuration(pod_templates(manifests)["rel-pdserve-router"])
    assert isinstance(router, RouterConfig)
    assert bool(arguments.tls_ca) == bool(router.tls_cert or router.tls_door_cert)
    assert bool(arguments.tls_cert) == bool(router.tls_door_ca)


def test_the_schema_has_every_option_that_the_chart_leaves_to_its_user() -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    assert schema == updated(schema), "run scripts/generate_chart_schema.py"
    for name, config in (("instanceOptions", InstanceConfig), ("routerOptions", RouterConfig)):
        known = {field.name for field in dataclasses.fields(config)} - SET_BY_CHART
        assert set(schema["definitions"][name]["properties"]) == known


def test_where_the_options_say_nothing_the_chart_knows_how_long_a_drain_may_take() -> None:
    # The chart has the default of drain_grace_s written down.
    for name, pod in pods({}).items():
        if not name.endswith("router"):
            grace_s = pod["spec"]["terminationGracePeriodSeconds"]
            assert grace_s == 15 + InstanceConfig().drain_grace_s


@pytest.mark.parametrize("model", BUILT_IN)
def test_every_model_of_the_image_is_taken(model: str) -> None:
    # The chart has their names written down.
    assert configuration(pods({"model": model})["rel-pdserve-router"]).model == model


def test_a_router_that_ends_finishes_every_request() -> None:
    pod = pods({"router": {"preStopSeconds": 5}})["rel-pdserve-router"]
    router = configuration(pod)
    assert isinstance(router, RouterConfig)
    assert router.drain_grace_s >= router.request_timeout_s
    assert pod["spec"]["terminationGracePeriodSeconds"] == 15 + 5 + router.drain_grace_s
