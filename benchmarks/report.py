"""Medians, percentiles and the machine that they were taken on."""

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console(width=110)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    rank = max(0, min(len(ordered) - 1, -(-int(share * 1000) * len(ordered) // 1000) - 1))
    return ordered[rank]


def print_machine() -> None:
    """Processor, cores and versions of what matters for speed."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "grpcio", "pdserve"))
    console.print(
        f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {packages}"
    )


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def spread(values: Sequence[float], unit: str = "", digits: int = 1) -> str:
    """Median, and the range in brackets."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


def milliseconds(values: Iterable[float], *shares: float) -> list[str]:
    """Percentiles of times in seconds, in ms."""
    taken = list(values)
    return [f"{1000 * percentile(taken, share):.1f}" for share in shares]
