"""Runs measurements: `python -m benchmarks [NAME …] [--repeats N]`."""

import argparse
import asyncio
from functools import partial

from benchmarks import (
    bench_capacity,
    fidelity,
    interference,
    paper,
    placement_speed,
    planner_speed,
    router_overhead,
    slo_placement,
    slow_link,
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
}


def main() -> None:
    """Runs the measurements that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"any of {', '.join(MEASUREMENTS)}; none: all")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument(
        "--sglang-router", default="", help="Python that has sglang-router, for `router`"
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.name) - MEASUREMENTS.keys())
    if unknown:
        parser.error(f"no measurement is called {unknown[0]}")
    print_machine()
    measurements = MEASUREMENTS | {
        "router": partial(router_overhead.run, sglang_router=arguments.sglang_router)
    }
    for name in arguments.name or MEASUREMENTS:
        asyncio.run(measurements[name](arguments.repeats))


if __name__ == "__main__":
    main()
