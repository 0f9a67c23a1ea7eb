"""The objects of a release fit each other: selectors, ports, names, rights."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from everything import SETS
from rendering import (
    EXAMPLES,
    Manifest,
    Values,
    container,
    example,
    of_kind,
    options,
    pod_templates,
    render,
)

CASES = {**{name: example(name) for name in EXAMPLES}, **SETS}
case = pytest.mark.parametrize("values", CASES.values(), ids=CASES)


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """What Kubernetes says of a label selector."""
    equal = selector.get("matchLabels", {}).items() <= labels.items()
    known = selector.get("matchExpressions", ())
    assert all(each["operator"] == "In" for each in known)
    return equal and all(labels.get(each["key"]) in each["values"] for each in known)


def labels_of(template: Manifest) -> dict[str, str]:
    return dict(template["metadata"]["labels"])


def ports_of(template: Manifest) -> dict[str, int]:
    return {each["name"]: each["containerPort"] for each in container(template).get("ports", ())}


def serving(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Pods that serve something, by the names of their objects."""
    pods = pod_templates(manifests)
    return {name: pod for name, pod in pods.items() if ports_of(pod) and "worker" not in name}


def selected(manifests: list[Manifest], selector: Mapping[str, Any]) -> dict[str, Manifest]:
    pods = pod_templates(manifests)
    return {name: pod for name, pod in pods.items() if matches(selector, labels_of(pod))}


@case
def test_a_workload_selects_its_own_pods_and_no_others(values: Values) -> None:
    manifests = render(values)
    for name, deployment in of_kind(manifests, "Deployment").items():
        selector = deployment["spec"]["selector"]
        assert list(selected(manifests, selector)) == [name]


@case
def test_a_service_has_pods_with_its_ports(values: Values) -> None:
    manifests = render(values)
    for name, service in of_kind(manifests, "Service").items():
        pods = selected(manifests, {"matchLabels": service["spec"]["selector"]})
        assert pods, f"{name} selects nothing"
        for port in service["spec"]["ports"]:
            for pod in pods.values():
                assert ports_of(pod)[port["targetPort"]] == port["port"]
            assert port["appProtocol"] in ("http", "https", "kubernetes.io/h2c")


@case
def test_the_process_listens_where_its_container_says(values: Values) -> None:
    option_of = {"grpc": "port", "http": "http-port", "metrics": "metrics-port"}
    for pod in serving(render(values)).values():
        for port, number in ports_of(pod).items():
            assert options(pod)[option_of[port]] == str(number)


@case
def test_probes_ask_a_port_that_is_there_in_a_way_that_it_understands(values: Values) -> None:
    for pod in serving(render(values)).values():
        tls = bool({"tls-cert", "tls-door-cert"} & set(options(pod)))
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container(pod)[probe]
            if tls:
                assert asked["httpGet"]["port"] in ports_of(pod)
            else:
                assert asked["grpc"]["port"] == ports_of(pod)["grpc"]
        # Nobody is restarted for not serving.
        alive = container(pod)["livenessProbe"]
        assert alive != container(pod)["readinessProbe"]
        assert alive.get("grpc", {}).get("service", "liveness") == "liveness"


@case
def test_budgets_and_policies_are_about_pods_that_there_are(values: Values) -> None:
    manifests = render(values)
    for budget in of_kind(manifests, "PodDisruptionBudget").values():
        assert selected(manifests, budget["spec"]["selector"])
    for policy in of_kind(manifests, "NetworkPolicy").values():
        pods = selected(manifests, policy["spec"]["podSelector"])
        assert pods
        for rule in policy["spec"]["ingress"]:
            for port in rule.get("ports", ()):
                assert all(port["port"] in ports_of(pod) for pod in pods.values())
            for peer in rule.get("from", ()):
                if list(peer) == ["podSelector"]:
                    assert selected(manifests, peer["podSelector"])
    for monitor in of_kind(manifests, "PodMonitor").values():
        pods = selected(manifests, monitor["spec"]["selector"])
        assert set(pods) == set(serving(manifests))
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert all(endpoint["port"] in ports_of(pod) for pod in pods.values())


def test_a_policy_lets_in_who_must_get_in_and_nobody_else() -> None:
    manifests = render(SETS["full"])
    instance = of_kind(manifests, "NetworkPolicy")["rel-pdserve-instance"]["spec"]
    pods = pod_templates(manifests)
    behind = set(selected(manifests, instance["podSelector"]))
    assert behind == {name for name in pods if not name.endswith(("router", "test"))}
    kv, calls, metrics = instance["ingress"]
    assert "ports" not in kv, "the ports of KV are the kernel's choice"
    assert set(selected(manifests, kv["from"][0]["podSelector"])) == behind
    assert set(selected(manifests, calls["from"][0]["podSelector"])) == {"rel-pdserve-router"}
    assert [each["port"] for each in metrics["ports"]] == ["metrics"]
    router = of_kind(manifests, "NetworkPolicy")["rel-pdserve-router"]["spec"]
    *_, test = router["ingress"][0]["from"]
    assert set(selected(manifests, test["podSelector"])) == {"rel-pdserve-test"}


@case
def test_autoscalers_scale_what_there_is(values: Values) -> None:
    manifests = render(values)
    workloads = of_kind(manifests, "Deployment") | of_kind(manifests, "LeaderWorkerSet")
    scalers = of_kind(manifests, "HorizontalPodAutoscaler") | of_kind(manifests, "ScaledObject")
    targets = {each["spec"]["scaleTargetRef"]["name"]: each for each in scalers.values()}
    assert set(targets) <= set(workloads)
    for name, workload in workloads.items():
        # Or Kubernetes would take 1, whatever runs.
        assert "replicas" in workload["spec"]
        if name in targets:
            target = targets[name]["spec"]["scaleTargetRef"]
            assert (target["apiVersion"], target["kind"]) == (
                workload["apiVersion"],
                workload["kind"],
            )


@case
def test_service_accounts_are_those_that_are_made(values: Values) -> None:
    manifests = render(values)
    accounts = set(of_kind(manifests, "ServiceAccount"))
    for name, pod in pod_templates(manifests).items():
        if not name.endswith("test"):
            assert pod["spec"]["serviceAccountName"] in accounts
        # Only the router speaks to Kubernetes, and only where it watches pods.
        speaks = options(pod).get("instances", "").startswith("kube:")
        assert pod["spec"]["automountServiceAccountToken"] == speaks


@case
def test_nothing_runs_as_root_or_may_become_it(values: Values) -> None:
    for pod in pod_templates(render(values)).values():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        security = container(pod)["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"]["drop"] == ["ALL"]
        assert set(security["capabilities"].get("add", ())) <= {"IPC_LOCK"}
        # Or a Service called pdserve would set PDSERVE_PORT.
        assert pod["spec"]["enableServiceLinks"] is False


@case
def test_volumes_are_mounted_and_mounts_are_volumes(values: Values) -> None:
    for pod in pod_templates(render(values)).values():
        mounts = container(pod)["volumeMounts"]
        paths = [each["mountPath"] for each in mounts]
        assert len(set(paths)) == len(paths)
        assert {each["name"] for each in mounts} == {
            each["name"] for each in pod["spec"]["volumes"]
        }
        for path in files_of(pod):
            assert any(path.startswith(f"{each}/") for each in paths), f"{path} is not mounted"


def files_of(pod: Manifest) -> Iterator[str]:
    """Paths of Secrets among the arguments."""
    return (value for value in options(pod).values() if value.startswith("/etc/pdserve/"))


@case
def test_a_pod_may_end_as_slowly_as_its_options_say(values: Values) -> None:
    for pod in serving(render(values)).values():
        drain = float(options(pod).get("drain-grace-s", 30))
        assert pod["spec"]["terminationGracePeriodSeconds"] >= drain + 10


@case
def test_workers_of_an_instance_are_seen_by_nobody(values: Values) -> None:
    manifests = render(values)
    for name, pod in pod_templates(manifests).items():
        is_instance = "worker" not in name and not name.endswith(("router", "test"))
        assert ("pdserve.io/role" in labels_of(pod)) == is_instance
