"""The network between the nodes decides how the phases are laid out."""

import pytest

from pdserve.latency.hardware import find_gpu
from pdserve.latency.roofline import Roofline
from pdserve.models.hf_config import parse_hf_config
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.goodput import Bisection
from pdserve.planner.plan import Placement
from pdserve.planner.problem import Effort, Problem
from pdserve.planner.search import Found, Search, search
from pdserve.planner.slo import Slo
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import IndependentLengths, LognormalLengths

H100 = find_gpu("h100")
LLAMA_70B = parse_hf_config(
    {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 28672,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
)
# Prompts of some 400 MB of KV, which 25 Gb/s carry in more than a tenth of a second.
WORKLOAD = draw_workload(
    WorkloadSpec(1000, IndependentLengths(LognormalLengths(1200, 0.8), LognormalLengths(200, 0.6)))
)
EFFORT = Effort(
    instance_requests=400, plan_requests=1000, seeds=1, threads=2, bisection=Bisection(0.05)
)


def searched(gbit: float) -> Search:
    nodes = [Node(f"node-{k}", H100, 8, gbit * 1e9 / 8) for k in range(8)]
    source = Roofline("Llama-3.1-70B", LLAMA_70B, "bfloat16", H100, max_tp=4, max_pp=2)
    slo = Slo(ttft_s=0.5, tpot_s=0.05)
    return search(Problem({H100.name: source}, Cluster(nodes), WORKLOAD, slo, effort=EFFORT))


@pytest.fixture(scope="module")
def slow() -> Search:
    return searched(25)


@pytest.fixture(scope="module")
def fast() -> Search:
    return searched(400)


def found_in(search: Search, layout: str) -> Found:
    return next(found for found in search.found if found.layout == layout)


def hands_over_within_nodes(placement: Placement) -> bool:
    """Whether every stage of prefill is where the same stage of its decode instances is."""
    prefill = [each for each in placement.instances if each.role == "prefill"]
    decode = [each for each in placement.instances if each.role == "decode"]
    return all(p.nodes == d.nodes for p in prefill for d in decode if p.group == d.group)


def test_a_slow_network_keeps_each_stage_of_both_phases_in_a_node(slow: Search) -> None:
    best = slow.found[0]
    assert best.layout == "paired"
    assert hands_over_within_nodes(best.placement)


def test_a_fast_network_lets_each_phase_have_its_own_shape_anywhere(fast: Search) -> None:
    best = fast.found[0]
    assert best.layout == "apart"
    assert not hands_over_within_nodes(best.placement)


def test_only_what_crosses_nodes_loses_by_a_slow_network(slow: Search, fast: Search) -> None:
    assert found_in(slow, "apart").goodput < 0.5 * found_in(fast, "apart").goodput
    for layout in ("paired", "colocated-chunked", "colocated-whole"):
        assert found_in(slow, layout).goodput == pytest.approx(
            found_in(fast, layout).goodput, rel=0.1
        )
