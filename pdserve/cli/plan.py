"""`pdserve plan`: how many instances of each phase, with which parallelism, and where."""

import argparse
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pdserve.cli.cluster_flags import add_cluster_flags, has_cluster, load_cluster
from pdserve.cli.compiling import prepare_simulator
from pdserve.cli.latency_flags import add_latency_flags, load_profiles, load_sources
from pdserve.cli.slo_flags import add_slo_flags, load_slo
from pdserve.cli.terminal import output_console, write_text
from pdserve.cli.workload_flags import WORKLOAD_EXAMPLES, add_workload_flags, load_workload
from pdserve.errors import ConfigError
from pdserve.latency.hardware import Gpu
from pdserve.latency.profile import Profile
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.cluster_file import write_cluster
from pdserve.planner.slo import Slo
from pdserve.workload.workload import Workload

if TYPE_CHECKING:
    from pdserve.planner.analysis import Analysis
    from pdserve.planner.helm_values import KubeTerms
    from pdserve.planner.problem import Effort, Problem

_EFFORTS = {"quick": (2_000, 5_000), "normal": (10_000, 100_000), "thorough": (50_000, 500_000)}
# What one process hands another on this machine: a copy through loopback.
_LOOPBACK_BYTES_PER_S = 1e9
_EXAMPLES = f"""\
examples:
  pdserve plan --model ./Llama-3.1-70B --nodes 8 --gpu h100 --gpus-per-node 8 --network-gbps 400 \\
      --trace azure_conv.csv --rate 30 --ttft-ms 500 --tpot-ms 50
  pdserve plan --model ./Llama-3.1-70B --cluster cluster.yaml --gpus 64 \\
      --prompt lognormal:mean=1155,sigma=1 --output 211 --ttft-ms 500 --tpot-ms 50
  pdserve plan --model meta-llama/Llama-3.1-8B-Instruct --from-kube --network-gbps 400 \\
      --max-tp 1 --max-pp 1 --trace azure_conv.csv --rate 30 --ttft-ms 500 --tpot-ms 50
      (writes plan/cluster.yaml too; then `helm install pdserve charts/pdserve -f plan/values.yaml`)
  pdserve plan --profile profile.json --trace day.csv --ttft-ms 2000 --tpot-ms 200
      (this machine, by a profile of its engine; then `pdserve up --plan plan/plan.yaml`)

With --rate: the fewest GPUs that serve it (or the least price, where prices are given). Without:
the most goodput on the cluster, or on --gpus of its GPUs.

{WORKLOAD_EXAMPLES}"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds costs, cluster, workload, SLOs, and how hard to look."""
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_latency_flags(parser)
    add_cluster_flags(parser)
    add_workload_flags(parser)
    add_slo_flags(parser)
    group = parser.add_argument_group("search")
    group.add_argument("--gpus", type=int, metavar="N", help="most GPUs to use (default: all)")
    for flag, what in (("--max-tp", "tensor"), ("--max-pp", "pipeline")):
        group.add_argument(
            flag,
            type=int,
            metavar="N",
            help=f"most {what}-parallel ranks of an instance (default: what fits); this version's "
            "engine runs 1",
        )
    group.add_argument(
        "--max-batch-seqs",
        type=int,
        default=256,
        metavar="N",
        help="sequences that run at once on an instance (default: 256)",
    )
    group.add_argument(
        "--effort",
        default="normal",
        choices=tuple(_EFFORTS),
        help="how many requests are simulated: up to 5,000 at once, 100,000 (default) or 500,000",
    )
    group.add_argument(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="how many rotations of the workload the final figures are taken over (default: 3)",
    )
    group.add_argument("--threads", type=int, default=0, metavar="N", help="default: every core")
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out",
        default="plan",
        metavar="DIR",
        help="folder for plan.yaml, values.yaml and report.html (default: plan)",
    )
    group.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """Plans, writes the files and prints what they say; 0, or an error that says what binds."""
    slo = load_slo(arguments)
    if math.isinf(slo.ttft_s) and math.isinf(slo.tpot_s):
        raise ConfigError("give --ttft-ms, --tpot-ms or both", field="ttft_ms")
    workload = load_workload(arguments)
    cluster = _cluster(arguments)
    out = _folder(arguments.out)
    if arguments.from_kube is not None:
        # Before the search, which may say that nothing fits: what was read can be corrected.
        write_cluster(cluster, out / "cluster.yaml")
    prepare_simulator()
    analysis = _analyse(_problem(arguments, workload, cluster, slo))
    _write(analysis, out, _terms(arguments))
    if arguments.json:
        from pdserve.planner.report.document import to_document

        write_text(json.dumps(to_document(analysis), indent=2) + "\n")
    else:
        from pdserve.planner.report.table import plan_view

        output_console().print(plan_view(analysis))
    Console(stderr=True).print(
        f"wrote {out / 'plan.yaml'}, {out / 'values.yaml'} and {out / 'report.html'}", markup=False
    )
    if arguments.from_kube is not None:
        Console(stderr=True).print(f"planned for {out / 'cluster.yaml'}", markup=False)
    return 0


def _cluster(arguments: argparse.Namespace) -> Cluster:
    """The cluster that the flags name; without any, this machine, where a profile is of it."""
    if has_cluster(arguments):
        return load_cluster(arguments)
    profiles = load_profiles(arguments)
    if len(profiles) != 1:
        raise ConfigError("give --cluster, or --nodes and --gpu", field="cluster")
    return _this_machine(profiles[0])


def _this_machine(profile: Profile) -> Cluster:
    """One node with a "GPU" for each core; a profile says how fast and how large each one is."""
    cores = len(os.sched_getaffinity(0))
    core = Gpu(profile.gpu, 0, 0.0, 0.0, 0.0, _LOOPBACK_BYTES_PER_S)
    return Cluster([Node("localhost", core, cores, _LOOPBACK_BYTES_PER_S)])


def _folder(name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}", field="out") from error
    return folder


def _problem(
    arguments: argparse.Namespace, workload: Workload, cluster: Cluster, slo: Slo
) -> "Problem":
    from pdserve.planner.problem import Problem

    node_gpus = max(node.gpus for node in cluster.nodes)
    return Problem(
        sources=load_sources(arguments, cluster.kinds, node_gpus),
        cluster=cluster,
        workload=workload,
        slo=slo,
        rate=arguments.rate,
        gpus=arguments.gpus,
        max_tp=arguments.max_tp,
        max_pp=arguments.max_pp,
        max_batch_seqs=arguments.max_batch_seqs,
        effort=_effort(arguments),
    )


def _effort(arguments: argparse.Namespace) -> "Effort":
    from pdserve.planner.problem import Effort

    for name, low in (("seeds", 1), ("threads", 0), ("max_batch_seqs", 1)):
        value = getattr(arguments, name)
        if value < low:
            raise ConfigError(
                f"{name} is {value}; it must be at least {low}", field=name, limit=f">= {low}"
            )
    instance_requests, plan_requests = _EFFORTS[arguments.effort]
    return Effort(instance_requests, plan_requests, arguments.seeds, arguments.threads)


def _analyse(problem: "Problem") -> "Analysis":
    """Searches and analyses with a progress line on stderr."""
    from pdserve.planner.analysis import analyse
    from pdserve.planner.search import search

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(pulse_style="bar.complete"),
        TextColumn("{task.completed:.0f} simulated"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def progress(text: str, steps: int) -> None:
            if text:
                bar.update(task, description=text)
            bar.advance(task, steps)

        return analyse(problem, search(problem, progress), progress)


def _write(analysis: "Analysis", out: Path, terms: "KubeTerms") -> None:
    """Writes the files, with a note on stderr where Kubernetes takes more than they say."""
    from pdserve.planner.helm_values import pods_find, write_values
    from pdserve.planner.plan_file import write_plan
    from pdserve.planner.plan_of import plan_of
    from pdserve.planner.report.html import write_html

    plan = plan_of(analysis)
    write_plan(plan, out / "plan.yaml")
    write_values(plan, out / "values.yaml", terms)
    write_html(analysis, out / "report.html")
    if not pods_find(plan.model):
        Console(stderr=True).print(
            f"{out / 'values.yaml'}: no pod finds {plan.model} by that name; for Kubernetes set "
            "model to a hub id, or to a path below modelFiles.mountPath with modelFiles.claim",
            markup=False,
            soft_wrap=True,
        )


def _terms(arguments: argparse.Namespace) -> "KubeTerms":
    from pdserve.planner.helm_values import KubeTerms

    return KubeTerms(tuple(arguments.tolerate or ()), arguments.rack_label or "")
