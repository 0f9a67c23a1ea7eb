"""What a pool's values make of its pods, beside the options."""

from typing import Any

import pytest
from rendering import Manifest, Values, container, of_kind, pod_templates, render

HOSTNAME = "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def grouped(nodes: list[str], *, required: bool = True) -> Values:
    """A group whose prefill is planned for `nodes` and whose decode for two others beside them."""
    prefill = {"nodes": nodes, "required": required}
    decode = {"nodes": [*nodes, "y", "z"], "required": required}
    return {
        "instances": {"grouping": {"require": HOSTNAME}},
        "prefill": {"pools": [{"name": "p", "replicas": 1, "group": 0, "placement": prefill}]},
        "decode": {"pools": [{"name": "d", "replicas": 1, "group": 0, "placement": decode}]},
    }


def pod(values: Values, name: str) -> Manifest:
    return pod_templates(render(values))[f"rel-pdserve-{name}"]


def pools(**pool: Any) -> Values:
    return {"prefill": {"pools": [{"name": "p", "replicas": 1, **pool}]}}


def test_pods_that_rather_run_on_some_nodes_name_each_of_them() -> None:
    affinity = pod(grouped(["a", "b"], required=False), "p")["spec"]["affinity"]["nodeAffinity"]
    assert set(affinity) == {PREFERRED}
    fields = [term["preference"]["matchFields"] for term in affinity[PREFERRED]]
    assert fields == [
        [{"key": "metadata.name", "operator": "In", "values": [node]}] for node in ("a", "b")
    ]


def test_a_group_that_is_planned_for_other_nodes_need_not_join_the_old_one() -> None:
    before, after = grouped(["a", "b"]), grouped(["c", "d"])
    for name in ("p", "d"):
        [term] = pod(after, name)["spec"]["affinity"]["podAffinity"][REQUIRED]
        assert term["topologyKey"] == HOSTNAME
        wanted = term["labelSelector"]["matchLabels"].items()
        assert all(wanted <= pod(after, each)["metadata"]["labels"].items() for each in "pd")
        assert not any(wanted <= pod(before, each)["metadata"]["labels"].items() for each in "pd")


def test_who_has_one_node_only_is_not_held_by_who_is_elsewhere() -> None:
    values = grouped(["a"])
    assert REQUIRED not in pod(values, "p")["spec"]["affinity"]["podAffinity"]
    assert REQUIRED in pod(values, "d")["spec"]["affinity"]["podAffinity"]
    loose = grouped(["a"], required=False)
    assert REQUIRED in pod(loose, "p")["spec"]["affinity"]["podAffinity"]


def test_pods_with_gpus_tolerate_the_taint_of_their_nodes() -> None:
    taint = {"key": "example.com/gpu", "operator": "Exists"}
    other = {"key": "team", "operator": "Exists"}
    gpu = {"count": 1, "resource": "example.com/gpu"}
    assert pod(pools(gpu=gpu), "p")["spec"]["tolerations"] == [taint]
    both = pod(pools(gpu=gpu, tolerations=[other]), "p")
    assert both["spec"]["tolerations"] == [other, taint]
    assert "tolerations" not in pod(pools(), "p")["spec"]


@pytest.mark.parametrize(
    ("pool", "resources"),
    [
        ({}, {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}),
        (
            {"gpu": {"count": 1}},
            {
                "requests": {"cpu": "2", "memory": "8Gi"},
                "limits": {"memory": "32Gi", "nvidia.com/gpu": 1},
            },
        ),
        (
            {"gpu": {"count": 1}, "resources": {"requests": {"memory": "1Gi"}}},
            {"requests": {"memory": "1Gi"}, "limits": {"nvidia.com/gpu": 1}},
        ),
    ],
)
def test_resources_without_values_are_those_that_fit(pool: Values, resources: Values) -> None:
    assert container(pod(pools(**pool), "p"))["resources"] == resources


def test_a_pool_may_run_another_image_and_the_others_stay() -> None:
    digest = f"sha256:{'0' * 64}"
    values = {
        "image": {"repository": "registry/pdserve", "digest": digest},
        **pools(image={"tag": "0.2.0-cpu", "pullPolicy": "Always"}),
    }
    upgraded, other = (container(pod(values, name)) for name in ("p", "decode-0"))
    assert upgraded["image"] == "registry/pdserve:0.2.0-cpu"
    assert upgraded["imagePullPolicy"] == "Always"
    assert other["image"] == f"registry/pdserve@{digest}"


def test_an_autoscaler_keeps_as_many_as_were_planned() -> None:
    values = {
        "instances": {"autoscaling": {"enabled": True}},
        **pools(replicas=3),
        "decode": {"pools": [{"name": "d", "replicas": 3, "autoscaling": {"minReplicas": 2}}]},
    }
    scalers = of_kind(render(values), "HorizontalPodAutoscaler")
    least = {name: scaler["spec"]["minReplicas"] for name, scaler in scalers.items()}
    assert least == {"rel-pdserve-p": 3, "rel-pdserve-d": 2}


def test_a_router_is_not_given_up_while_instances_load() -> None:
    values = pools(startupSeconds=7000)
    router = of_kind(render(values), "Deployment")["rel-pdserve-router"]
    assert router["spec"]["progressDeadlineSeconds"] == 7600


def test_a_router_starts_anew_when_it_may_read_nodes() -> None:
    templates = [
        pod_templates(render({"rbac": {"nodes": nodes}}))["rel-pdserve-router"]
        for nodes in (False, True)
    ]
    assert templates[0] != templates[1]
