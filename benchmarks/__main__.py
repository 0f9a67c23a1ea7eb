"""Runs measurements: `python -m benchmarks [NAME …] [--repeats N]`."""

import argparse
import asyncio

from benchmarks import (
    fidelity,
    interference,
    paper,
    planner_speed,
    router_overhead,
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
}


def main() -> None:
    """Runs the measurements that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"any of {', '.join(MEASUREMENTS)}; none: all")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.name) - MEASUREMENTS.keys())
    if unknown:
        parser.error(f"no measurement is called {unknown[0]}")
    print_machine()
    for name in arguments.name or MEASUREMENTS:
        asyncio.run(MEASUREMENTS[name](arguments.repeats))


if __name__ == "__main__":
    main()
