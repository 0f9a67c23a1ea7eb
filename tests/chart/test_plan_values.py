"""What `pdserve plan` writes installs as it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import VERSIONS, Manifest, container, of_kind, options, render

from pdserve.planner.helm_values import write_values
from pdserve.planner.plan import InstancePlan, Layout, Role, Stage
from pdserve.planner.plan_file import PlanFile
from pdserve.planner.slo import Slo


def instance(name: str, role: Role, node: str, *gpus: int, **more: Any) -> InstancePlan:
    """An instance of one stage, on those GPUs of a node."""
    fields = {"gpu": "H100-SXM5-80GB", "max_batch_seqs": 64, "group": 0, **more}
    stages = (Stage(node, gpus),)
    return InstancePlan(name=name, role=role, tp=len(gpus), pp=1, stages=stages, **fields)


def values_of(folder: Path, layout: Layout, *instances: InstancePlan) -> dict[str, Any]:
    """What the planner writes for a plan of these instances."""
    plan = PlanFile("org/model", Slo(0.5, 0.05, 0.9), None, layout, instances)
    write_values(plan, folder / "values.yaml")
    return dict(yaml.safe_load((folder / "values.yaml").read_text("utf-8")))


def nodes_of(workload: Manifest) -> list[str]:
    affinity = workload["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    nodes = []
    for term in affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]:
        [field] = term["matchFields"]
        assert (field["key"], field["operator"]) == ("metadata.name", "In")
        [node] = field["values"]  # Kubernetes takes one
        nodes.append(node)
    return nodes


@pytest.mark.parametrize("version", VERSIONS)
def test_instances_are_where_and_what_the_plan_says(tmp_path: Path, version: int) -> None:
    values = values_of(
        tmp_path,
        "apart",
        instance("p0", "prefill", "a", 0, max_batch_tokens=8192),
        instance("p1", "prefill", "b", 0, max_batch_tokens=8192),
        instance("d0", "decode", "b", 1, max_batch_tokens=1024, gpu="L40S+link16"),
    )
    manifests = render(values, version=version)
    deployments = of_kind(manifests, "Deployment")
    prefill, decode = (deployments[f"rel-pdserve-{role}-0"] for role in ("prefill", "decode"))
    assert (prefill["spec"]["replicas"], nodes_of(prefill)) == (2, ["a", "b"])
    assert (decode["spec"]["replicas"], nodes_of(decode)) == (1, ["b"])
    for workload, product, tokens in (
        (prefill, "NVIDIA-H100-80GB-HBM3", "8192"),
        (decode, "NVIDIA-L40S", "1024"),
    ):
        pod = workload["spec"]["template"]
        assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": product}
        assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert options(pod)["max-batch-tokens"] == tokens
        assert options(pod)["model"] == "org/model"
        assert container(pod)["image"].endswith("-cuda")
    router = options(deployments["rel-pdserve-router"]["spec"]["template"])
    assert (router["slo-ttft-ms"], router["slo-tpot-ms"]) == ("500", "50")
    assert router["colocated"] == "false"


def test_pools_of_a_group_attract_each_other_and_no_others(tmp_path: Path) -> None:
    values = values_of(
        tmp_path,
        "paired",
        *(instance(f"p{k}", "prefill", f"n{k}", 0, group=k, max_batch_tokens=1) for k in (0, 1)),
        *(instance(f"d{k}", "decode", f"n{k}", 1, group=k, max_batch_tokens=1) for k in (0, 1)),
    )
    deployments = of_kind(render(values), "Deployment")
    for role in ("prefill", "decode"):
        for group in (0, 1):
            template = deployments[f"rel-pdserve-{role}-{group}"]["spec"]["template"]
            assert template["metadata"]["labels"]["pdserve.io/group"] == str(group)
            terms = template["spec"]["affinity"]["podAffinity"][
                "preferredDuringSchedulingIgnoredDuringExecution"
            ]
            assert [term["podAffinityTerm"]["topologyKey"] for term in terms] == [
                "kubernetes.io/hostname",
                "nvidia.com/gpu.clique",
                "topology.kubernetes.io/rack",
                "topology.kubernetes.io/zone",
            ]
            weights = [term["weight"] for term in terms]
            assert weights == sorted(weights, reverse=True)
            for term in terms:
                labels = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
                assert labels["pdserve.io/group"] == str(group)


def test_colocated_plans_have_decode_instances_only(tmp_path: Path) -> None:
    both = instance("x", "both", "a", 0, max_batch_tokens=512)
    deployments = of_kind(render(values_of(tmp_path, "colocated-chunked", both)), "Deployment")
    assert set(deployments) == {"rel-pdserve-decode-0", "rel-pdserve-router"}
    router = deployments["rel-pdserve-router"]["spec"]["template"]
    assert options(router)["colocated"] == "true"


def test_an_instance_whose_stages_are_on_several_nodes_is_a_group_of_pods(tmp_path: Path) -> None:
    stages = (Stage("a", (0, 1)), Stage("b", (0, 1)))
    spread = replace(instance("p", "prefill", "a", 0, 1, max_batch_tokens=1), pp=2, stages=stages)
    decode = instance("d", "decode", "b", 2, max_batch_tokens=1)
    values = values_of(tmp_path, "apart", spread, decode) | {"allowUnsupported": True}
    [group] = of_kind(render(values), "LeaderWorkerSet").values()
    assert group["spec"]["leaderWorkerTemplate"]["size"] == 2
    pod = group["spec"]["leaderWorkerTemplate"]["workerTemplate"]
    assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod["metadata"]["annotations"]["pdserve.io/parallelism"] == "tp=2 pp=2"


def test_an_instance_of_many_gpus_is_rendered_when_asked_for(tmp_path: Path) -> None:
    wide = instance("p", "prefill", "a", *range(8), max_batch_tokens=512)
    decode = instance("d", "decode", "b", 0, max_batch_tokens=512)
    values = values_of(tmp_path, "apart", wide, decode) | {"allowUnsupported": True}
    deployment = of_kind(render(values), "Deployment")["rel-pdserve-prefill-0"]
    pod = deployment["spec"]["template"]
    assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == 8
    values["instances"] = {"gpu": {"perNode": 4}}
    [group] = of_kind(render(values), "LeaderWorkerSet").values()
    assert group["spec"]["leaderWorkerTemplate"]["size"] == 2
    for template in ("leaderTemplate", "workerTemplate"):
        pod = group["spec"]["leaderWorkerTemplate"][template]
        assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == 4
