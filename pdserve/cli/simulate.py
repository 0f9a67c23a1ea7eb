"""`pdserve simulate`: what requests would see on instances that need not exist."""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pdserve.cli.cluster_flags import add_cluster_flags, load_cluster
from pdserve.cli.compiling import prepare_simulator
from pdserve.cli.latency_flags import add_latency_flags, load_profiles, load_sources
from pdserve.cli.slo_flags import add_slo_flags, load_slo
from pdserve.cli.terminal import output_console, write_text
from pdserve.cli.workload_flags import WORKLOAD_EXAMPLES, add_workload_flags, load_workload
from pdserve.errors import ConfigError
from pdserve.latency.hardware import find_gpu
from pdserve.latency.source import LatencySource
from pdserve.planner.instance_spec import InstanceSpec, parse_instances
from pdserve.planner.plan_file import read_plan
from pdserve.planner.slo import Slo

if TYPE_CHECKING:
    from pdserve.planner.simulator.policy import Policy
    from pdserve.planner.simulator.simulation import Deployment

_POLICIES = ("pdserve", "distserve", "vllm", "sarathi")
_EXAMPLES = f"""\
examples:
  pdserve simulate --profile opt-13b-a100-80g-distserve --trace trace.csv \\
      --prefill tp=2 --decode tp=1 --ttft-ms 400 --tpot-ms 100
  pdserve simulate --profile profile.json --trace trace.csv --colocated tp=1,replicas=2 --json
  pdserve simulate --model ./Llama-3.1-70B --gpu h100 --prompt 1000 --output 200 --rate 5 \\
      --prefill tp=4,replicas=2 --decode tp=4 --link-gbps 200 --ttft-ms 500 --tpot-ms 50
  pdserve simulate --plan plan.yaml --cluster cluster.yaml --model ./Llama-3.1-70B --trace day.csv

{WORKLOAD_EXAMPLES}"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the instances, their costs, the workload and the SLOs."""
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    group = parser.add_argument_group("instances, as tp=N,pp=N,replicas=N, or of a plan")
    group.add_argument("--prefill", metavar="SPEC", help="prefill instances; with --decode")
    group.add_argument("--decode", metavar="SPEC", help="decode instances; with --prefill")
    group.add_argument("--colocated", metavar="SPEC", help="instances that do both phases")
    group.add_argument("--plan", metavar="FILE", help="a plan of `pdserve plan`, on its cluster")
    group.add_argument(
        "--link-gbps",
        type=float,
        default=math.inf,
        metavar="GBPS",
        help="network card of each instance, each way (default: inf)",
    )
    group.add_argument(
        "--link-latency-ms", type=float, default=0.0, metavar="MS", help="added to each transfer"
    )
    group.add_argument(
        "--policy",
        choices=_POLICIES,
        help="batching (default: that of the engine that the costs are of)",
    )
    group.add_argument(
        "--max-batch-tokens", type=int, metavar="N", help="prompt tokens of a step; 0: all KV"
    )
    group.add_argument("--max-batch-seqs", type=int, metavar="N", help="sequences that run at once")
    add_latency_flags(parser)
    add_cluster_flags(parser)
    add_workload_flags(parser)
    add_slo_flags(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Simulates and prints; 0, or an error that names the flag or the line of the file."""
    slo = load_slo(arguments)
    workload = load_workload(arguments)
    specs = _specs(arguments)
    prepare_simulator()
    from pdserve.planner.simulator.simulation import simulate

    deployment = _planned(arguments) if specs is None else _described(arguments, specs)
    deployment = replace(deployment, output_tokens=float(workload.output_tokens.mean()))
    summary = simulate(deployment, workload, slo).summary(slo)
    if arguments.json:
        write_text(json.dumps(_finite(summary)) + "\n")
    else:
        output_console().print(_table(summary, slo))
    return 0


def _specs(arguments: argparse.Namespace) -> dict[str, InstanceSpec] | None:
    """The instances that the flags describe, by role; None where a plan does."""
    given = {
        "prefill": arguments.prefill,
        "decode": arguments.decode,
        "both": arguments.colocated,
    }
    named = {role for role, text in given.items() if text is not None}
    if arguments.plan is not None:
        if named:
            raise ConfigError("--plan has its own instances", field="plan")
        return None
    if named not in ({"prefill", "decode"}, {"both"}):
        raise ConfigError("give --prefill and --decode, or --colocated, or --plan", field="prefill")
    flags = {"both": "colocated"}
    return {
        role: parse_instances(text, flags.get(role, role))
        for role, text in given.items()
        if text is not None
    }


def _described(arguments: argparse.Namespace, specs: Mapping[str, InstanceSpec]) -> "Deployment":
    """The deployment that flags describe, every instance on a node of its own."""
    from pdserve.planner.simulator.links import separate_links
    from pdserve.planner.simulator.simulation import Deployment, SimulatedInstance

    if not arguments.link_gbps > 0:
        raise ConfigError(
            f"link_gbps is {arguments.link_gbps}; it must be above 0", field="link_gbps"
        )
    source = _only_source(arguments, max(spec.tp for spec in specs.values()))
    instances = [
        SimulatedInstance(role, source.instance(spec.tp, spec.pp), _policy(arguments, source))
        for role, spec in specs.items()
        for _ in range(spec.replicas)
    ]
    links = separate_links(
        len(instances), arguments.link_gbps * 1e9 / 8, arguments.link_latency_ms / 1e3
    )
    return Deployment(instances, links, source.kv.bytes_per_token)


def _only_source(arguments: argparse.Namespace, tp: int) -> LatencySource:
    """The costs of the one kind of GPU that all instances are on."""
    profiles = load_profiles(arguments)
    if len(profiles) > 1:
        raise ConfigError("instances that flags describe are on one kind of GPU", field="profile")
    if profiles:
        return profiles[0]
    if arguments.gpu is None:
        raise ConfigError("give --profile, or --model and --gpu", field="gpu")
    gpu = find_gpu(arguments.gpu)
    return load_sources(arguments, {gpu.name: gpu}, tp)[gpu.name]


def _policy(arguments: argparse.Namespace, source: LatencySource) -> "Policy":
    """The batching that the flags name, else that of the costs' engine."""
    from pdserve.planner.simulator.policy import find_policy

    engine = {"vllm": "distserve"}.get(source.policy, source.policy)
    policy = find_policy(arguments.policy or engine)
    for name, low in (("max_batch_tokens", 0), ("max_batch_seqs", 1)):
        value = getattr(arguments, name)
        if value is None:
            continue
        if value < low:
            raise ConfigError(f"{name} is {value}; it must be at least {low}", field=name)
        policy = replace(policy, **{name: value})
    return policy


def _planned(arguments: argparse.Namespace) -> "Deployment":
    """The deployment of a plan, on the links of its cluster."""
    from pdserve.planner.evaluation import deployment_of
    from pdserve.planner.plan import Placement
    from pdserve.planner.topology import links_of

    plan = read_plan(arguments.plan)
    cluster = load_cluster(arguments)
    node_gpus = max(node.gpus for node in cluster.nodes)
    sources = load_sources(arguments, cluster.kinds, node_gpus)
    placement = Placement(plan.layout, plan.instances)
    links, _ = links_of(placement, cluster)
    return deployment_of(placement, sources, links)


def _table(summary: Mapping[str, Any], slo: Slo) -> Table:
    table = Table(title=f"attainment {summary['attainment']:.1%}", title_justify="left")
    for name in ("milliseconds", "p50", "p90", "p99", "SLO"):
        table.add_column(name, justify="left" if name == "milliseconds" else "right")
    bounds = {"ttft_ms": slo.ttft_s * 1e3, "tpot_ms": slo.tpot_s * 1e3}
    for key, name in (
        ("ttft_ms", "TTFT"),
        ("queue_ms", "  of it queueing"),
        ("tpot_ms", "TPOT"),
        ("handoff_ms", "first token to KV on decode"),
    ):
        figures = [_figure(summary[key][p]) for p in ("p50", "p90", "p99")]
        bound = bounds.get(key, math.inf)
        table.add_row(name, *figures, f"{bound:,.0f}" if math.isfinite(bound) else "")
    table.caption = (
        f"{summary['requests']:,} requests, {summary['refused']:,} refused, "
        f"{summary['preemptions']:,} preemptions; {summary['simulated_s']:,.0f} s simulated in "
        f"{summary['wall_s']:.3f} s ({summary['requests_per_wall_s']:,.0f} requests/s)"
    )
    table.caption_justify = "left"
    return table


def _figure(ms: float) -> str:
    return f"{ms:,.1f}" if math.isfinite(ms) else "–"


def _finite(value: Any) -> Any:
    """The value with null in the place of what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
