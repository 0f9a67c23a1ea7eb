"""Plans as values of the chart."""

from dataclasses import fields
from pathlib import Path

import yaml
from hypothesis import given, settings
from plans import instance, plan, plans

from pdserve.config import InstanceConfig, RouterConfig
from pdserve.latency.hardware import find_gpu, known_gpus
from pdserve.models.source import BUILT_IN
from pdserve.planner.helm_values import KubeTerms, pods_find, product, to_values, write_values
from pdserve.planner.plan_file import PlanFile, read_plan

ROOT = Path(__file__).parents[3]


def test_instances_that_are_alike_are_one_pool() -> None:
    values = to_values(
        plan(
            "apart",
            instance("p0", "prefill", ("a", (0, 1)), max_batch_tokens=2048),
            instance("p1", "prefill", ("b", (0, 1)), max_batch_tokens=2048),
            instance("p2", "prefill", ("b", (2, 3)), max_batch_tokens=4096),
            instance("d0", "decode", ("c", (0,)), ("d", (0,)), gpu="L40S+link16"),
            model="llama",
        )
    )
    assert values["model"] == "llama"
    assert values["slo"] == {"ttft_ms": 500, "tpot_ms": 50, "attainment": 0.9}
    assert values["router"] == {"config": {"colocated": False}}
    first, second = values["prefill"]["pools"]
    assert first == {
        "name": "prefill-0",
        "replicas": 2,
        "tensorParallelism": 2,
        "pipelineParallelism": 1,
        "gpu": {"product": "NVIDIA-H100-80GB-HBM3", "count": 2},
        "config": {"max_batch_tokens": 2048, "max_batch_seqs": 64},
        "placement": {"nodes": ["a", "b"]},
    }
    assert (second["name"], second["replicas"]) == ("prefill-1", 1)
    [pool] = values["decode"]["pools"]
    assert pool["gpu"] == {"product": "NVIDIA-L40S", "count": 2, "perNode": 1}
    assert (pool["tensorParallelism"], pool["pipelineParallelism"]) == (1, 2)
    assert pool["placement"] == {"nodes": ["c", "d"]}


def test_an_instance_on_several_nodes_is_made_of_pods_that_are_alike() -> None:
    stages = (("a", (0, 1)), ("a", (2, 3)), ("b", (0, 1)))
    gpu = to_values(plan("colocated-whole", instance("x", "both", *stages)))["decode"]["pools"][0]
    assert gpu["gpu"] == {"product": "NVIDIA-H100-80GB-HBM3", "count": 6, "perNode": 2}


def test_a_pool_of_paired_instances_is_of_one_group() -> None:
    values = to_values(
        plan(
            "paired",
            *(instance(f"p{k}", "prefill", (f"n{k}", (0,)), group=k) for k in (1, 2)),
            *(instance(f"d{k}", "decode", (f"n{k}", (1,)), group=k) for k in (1, 2)),
        )
    )
    for role in ("prefill", "decode"):
        pools = values[role]["pools"]
        assert [(each["group"], each["placement"]["nodes"]) for each in pools] == [
            (1, ["n1"]),
            (2, ["n2"]),
        ]


def test_colocated_instances_are_decode_instances() -> None:
    values = to_values(plan("colocated-chunked", instance("x", "both", ("a", (0,)))))
    assert values["router"]["config"] == {"colocated": True}
    assert values["prefill"]["pools"] == []
    assert values["decode"]["pools"][0]["replicas"] == 1


def test_a_plan_without_a_token_limit_leaves_the_option_alone() -> None:
    both = (instance("x", "both", ("a", (0,)), max_batch_tokens=0),)
    [pool] = to_values(plan("colocated-chunked", *both))["decode"]["pools"]
    assert pool["config"] == {"max_batch_seqs": 64}


def test_what_a_plan_for_kubernetes_rests_on_is_in_its_values() -> None:
    planned = plan("colocated-chunked", instance("x", "both", ("a", (0,))))
    assert not {"instances", "rbac"} & set(to_values(planned))
    tolerant = to_values(planned, KubeTerms(tolerated=("team", "spot", "team")))
    assert tolerant["instances"] == {
        "tolerations": [{"key": key, "operator": "Exists"} for key in ("spot", "team")]
    }
    racks = to_values(planned, KubeTerms(rack_label="example.com/row"))
    assert racks["router"]["config"]["rack_label"] == "example.com/row"
    assert racks["instances"]["grouping"]["prefer"][2] == "example.com/row"
    assert racks["rbac"] == {"nodes": True}


def test_pods_find_models_of_the_image_and_of_the_hub() -> None:
    assert pods_find("meta-llama/Llama-3.1-8B-Instruct")
    assert all(map(pods_find, BUILT_IN))
    assert not pods_find("Llama-3.1-70B")


def test_every_kind_of_the_catalogue_is_found_by_its_label() -> None:
    for gpu in known_gpus():
        assert product(gpu.name).startswith("NVIDIA-")
        assert find_gpu(product(gpu.name)) == gpu
    assert product("NVIDIA-RTX-A6000") == "NVIDIA-RTX-A6000"


@given(plans())
@settings(max_examples=50)
def test_no_instance_is_lost_and_options_are_called_what_they_are(planned: PlanFile) -> None:
    values = to_values(planned)
    pools = [*values["prefill"]["pools"], *values["decode"]["pools"]]
    assert sum(pool["replicas"] for pool in pools) == len(planned.instances)
    assert sum(pool["replicas"] * pool["gpu"]["count"] for pool in pools) == planned.gpus
    assert len({pool["name"] for pool in pools}) == len(pools)
    options = {field.name for field in fields(InstanceConfig)}
    assert all(set(pool["config"]) <= options for pool in pools)
    assert set(values["router"]["config"]) <= {field.name for field in fields(RouterConfig)}


def test_the_page_on_plans_shows_the_values_of_its_plan(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "plan-file.md").read_text("utf-8")
    shown, values = (part.partition("```")[0] for part in page.split("```yaml\n")[1:3])
    (tmp_path / "plan.yaml").write_text(shown)
    write_values(read_plan(tmp_path / "plan.yaml"), tmp_path / "values.yaml")
    assert yaml.safe_load((tmp_path / "values.yaml").read_text()) == yaml.safe_load(values)
