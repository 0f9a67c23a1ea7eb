"""Runs measurements: `python -m benchmarks [NAME …] [--repeats N]`."""

import argparse
import asyncio
from functools import partial

from benchmarks import (
    bench_capacity,
    beside_transformers,
    fidelity,
    interference,
    kv_link,
    paper,
    placement_speed,
    planner_speed,
    router_overhead,
    slo_placement,
    slow_link,
    soak,
    throughput,
)
from benchmarks.report import print_machine

MEASUREMENTS = {
    "throughput": throughput.run,
    "router": router_overhead.run,
    "interference": interference.run,
    "fidelity": fidelity.run,
    "paper": paper.run,
    "planner": planner_speed.run,
    "bench": bench_capacity.run,
    "placement": placement_speed.run,
    "slow-link": slow_link.run,
    "slo-placement": slo_placement.run,
    "kv-link": kv_link.run,
}
# Too long, or too large, to be among all.
BY_NAME = ("soak", "beside-transformers")


def main() -> None:
    """Runs the measurements that are named, or all but those that run only by name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = f"any of {', '.join((*MEASUREMENTS, *BY_NAME))}; none: all but {', '.join(BY_NAME)}"
    parser.add_argument("name", nargs="*", help=names)
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument(
        "--sglang-router", default="", help="Python that has sglang-router, for `router`"
    )
    parser.add_argument("--minutes", type=float, default=30, help="of `soak` (default: 30)")
    parser.add_argument("--real-model", action="store_true", help="`soak` with the default model")
    parser.add_argument(
        "--model",
        default="",
        help="directory, for `beside-transformers` (default: random weights of the shape of "
        "Llama 3.1 8B, 16 GB in TMPDIR)",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="`beside-transformers` with lengths of a 32nd and a tiny model, to try it on a CPU",
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.name) - {*MEASUREMENTS, *BY_NAME})
    if unknown:
        parser.error(f"no measurement is called {unknown[0]}")
    print_machine()
    measurements = MEASUREMENTS | {
        "router": partial(router_overhead.run, sglang_router=arguments.sglang_router),
        "soak": lambda _: soak.run(arguments.minutes, real_model=arguments.real_model),
        "beside-transformers": partial(
            beside_transformers.run,
            model=arguments.model,
            size=beside_transformers.SMALL if arguments.small else beside_transformers.FULL,
        ),
    }
    for name in arguments.name or MEASUREMENTS:
        asyncio.run(measurements[name](arguments.repeats))


if __name__ == "__main__":
    main()
