"""How fast the planner is: requests simulated in a second, and seconds for a whole plan.

Drawn workloads, so that nothing but the repository is needed; where the project's shared data lie
beside it, the real trace as well.
"""

import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.report import console, print_table, spread
from pdserve.latency.hardware import find_gpu
from pdserve.latency.profile import read_profile
from pdserve.latency.roofline import Roofline
from pdserve.models.config import ModelConfig
from pdserve.models.hf_config import parse_hf_config
from pdserve.planner.analysis import analyse
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.plan import Placement
from pdserve.planner.problem import Problem
from pdserve.planner.search import Search, search
from pdserve.planner.simulator.links import separate_links
from pdserve.planner.simulator.policy import DISTSERVE
from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance, simulate
from pdserve.planner.slo import Slo
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.lengths import IndependentLengths, LognormalLengths
from pdserve.workload.read import read_trace
from pdserve.workload.workload import Workload

# DistServe's own simulator on one core of the machine that docs/planner.md names, on requests of
# about 200 output tokens.
SIMDISTSERVE_PER_S = 430
RATES = (1, 2, 3, 4, 6)
TIMES_A_ROUND = 5
# Like the Azure conversation trace of 2023: its means of prompt and output tokens.
LENGTHS = IndependentLengths(LognormalLengths(1155, 1.0), LognormalLengths(211, 0.8))
TRACE = Path(__file__).parents[2] / "shared/data/traces/azure_llm_2023_conv.csv"
NODE_GPUS = 8
MIXED = (("h100", 48), ("a100", 48), ("l40s", 32))
MIXED_REQUESTS = 100_000
_FRESH = "from benchmarks.planner_speed import warm_up; warm_up()"


async def run(repeats: int) -> None:
    """Prints the three tables."""
    load, _, _ = os.getloadavg()
    console.print(f"load of the machine before: {load:.1f} on {os.cpu_count()} cores")
    warm_up()
    _print_simulator(repeats)
    _print_small_cluster(repeats)
    _print_large_cluster()


def warm_up() -> None:
    """Compiles the simulator, or loads what was compiled before."""
    simulate(_distserve(), _drawn(10), Slo())


def _print_simulator(repeats: int) -> None:
    """Requests per second of wall time, in one thread."""
    rows = []
    for name, whole in _workloads():
        for requests in (1000, 10_000):
            for rate in RATES:
                load = whole.take(slice(0, requests)).at_rate(rate)
                speeds = [requests / _simulation_s(load) for _ in range(repeats * TIMES_A_ROUND)]
                ratio = statistics.median(speeds) / SIMDISTSERVE_PER_S
                rows.append(
                    (name, str(requests), str(rate), spread(speeds, digits=0), f"{ratio:.0f}")
                )
    print_table(
        "OPT-13B, 1 prefill and 1 decode instance of TP 1, DistServe's policy; one thread",
        ("workload", "requests", "rate", "simulated a second", f"times {SIMDISTSERVE_PER_S}"),
        rows,
    )


def _print_small_cluster(repeats: int) -> None:
    """A plan for 8 nodes of 8 H100 at two bandwidths between them."""
    cold = [_cold_start_s() for _ in range(repeats)]
    console.print(f"a first start, which compiles the simulator: {spread(cold, ' s')} more")
    rows = []
    for name, whole in _workloads():
        workload = whole.take(slice(0, 10_000))
        for gbit in (25, 400):
            problem = _problem([("h100", 8)], gbit, workload, Slo(0.5, 0.05))
            seconds, found = [], None
            for _ in range(repeats):
                began, cpu = time.perf_counter(), time.process_time()
                found = search(problem)
                seconds.append((time.perf_counter() - began, time.process_time() - cpu))
            assert found is not None
            rows.append(
                (
                    name,
                    f"{gbit} Gb/s",
                    spread([wall for wall, _ in seconds]),
                    spread([cpu for _, cpu in seconds]),
                    _layouts(found),
                    _in_words(found.found[0].placement),
                )
            )
    print_table(
        f"Llama-3.1-70B on 8 nodes of {NODE_GPUS} H100, 10,000 requests",
        ("workload", "network", "s", "s of CPU", "requests/s a GPU by layout", "chosen"),
        rows,
    )


def _print_large_cluster() -> None:
    """A plan for 128 nodes of three kinds of GPU."""
    problem = _problem(MIXED, 400, _drawn(MIXED_REQUESTS), Slo(1.0, 0.08))
    rows, began = [], time.perf_counter()
    found = search(problem)
    searched = time.perf_counter()
    rows.append(("search", f"{searched - began:.0f}", f"{_peak_gib():.2f}"))
    analyse(problem, found, lambda _text, _steps: None)
    rows.append(("analyse", f"{time.perf_counter() - searched:.0f}", f"{_peak_gib():.2f}"))
    nodes = ", ".join(f"{count} {find_gpu(kind).name}" for kind, count in MIXED)
    print_table(
        f"Llama-3.1-70B on nodes of {NODE_GPUS}: {nodes}; {MIXED_REQUESTS} requests",
        ("", "s", "peak memory of the process, GiB"),
        rows,
    )
    console.print(f"{_layouts(found)}: {_in_words(found.found[0].placement)}")


def _workloads() -> Iterator[tuple[str, Workload]]:
    yield "drawn", _drawn(10_000)
    if TRACE.exists():
        yield "Azure", read_trace(str(TRACE))


def _drawn(requests: int) -> Workload:
    return draw_workload(WorkloadSpec(requests, LENGTHS))


def _distserve() -> Deployment:
    profile = read_profile("opt-13b-a100-80g-distserve")
    roles = ("prefill", "decode")
    instances = [SimulatedInstance(role, profile.instance(1, 1), DISTSERVE) for role in roles]
    return Deployment(instances, separate_links(2, math.inf), profile.kv.bytes_per_token)


def _simulation_s(load: Workload) -> float:
    deployment = _distserve()
    began = time.perf_counter()
    simulate(deployment, load, Slo(0.4, 0.1))
    return time.perf_counter() - began


def _cold_start_s() -> float:
    """Seconds that a process takes longer that finds nothing compiled."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PDSERVE_CACHE_DIR": folder}
        times = []
        for _ in ("cold", "warm"):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", _FRESH], env=environment, check=True)
            times.append(time.perf_counter() - began)
    return times[0] - times[1]


def _problem(
    kinds: Sequence[tuple[str, int]], gbit: float, workload: Workload, slo: Slo
) -> Problem:
    nodes = [
        Node(f"{kind}-{k}", find_gpu(kind), NODE_GPUS, gbit * 1e9 / 8)
        for kind, count in kinds
        for k in range(count)
    ]
    sources = {
        find_gpu(kind).name: Roofline("Llama-3.1-70B", _llama_70b(), "bfloat16", find_gpu(kind))
        for kind, _ in kinds
    }
    return Problem(sources, Cluster(nodes), workload, slo)


def _llama_70b() -> ModelConfig:
    return parse_hf_config(
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


def _layouts(found: Search) -> str:
    return ", ".join(f"{each.layout} {each.per_gpu:.3g}" for each in found.found)


def _in_words(placement: Placement) -> str:
    return ", ".join(f"{count} {shape.role} {shape}" for shape, count in placement.shapes().items())


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
