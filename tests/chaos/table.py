"""The recovery times as a page of the documentation."""

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.chaos.trial import Trial

_HEAD = """# Recovery times

Written by `make chaos`: each line is one cell of the matrix of the
[failure contract](failure-contract.md), tried under load with real services, real transfers and an
engine without a model (`tests/chaos`). No request was lost, every token was the right one, and
nothing was left behind, else there would be no table. Times are in seconds: the longest that a
request which needed another attempt was without a token from the fault on; of a router that fails,
the time until its clients were told. A dash: nobody noticed. The router bore {silence_s:g} s of
silence. Combinations that are no cell are in `tests/chaos/cells.py`, each with its reason.

{machine}

"""


def write_table(path: Path, trials: Sequence[Trial], silence_s: float) -> None:
    """Writes the page, and prints the table."""
    rows = [
        (
            *(str(part) for part in (trial.cell.victim, trial.cell.fault, trial.cell.moment)),
            str(trial.faults),
            str(trial.requests),
            str(len(trial.recoveries)),
            _seconds(trial.median_s),
            _seconds(trial.longest_s),
        )
        for trial in trials
    ]
    columns = ("what", "how", "moment", "faults", "requests", "disturbed", "median", "longest")
    table = _markdown(columns, rows)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}."
    head = _HEAD.format(silence_s=silence_s, machine=machine)
    path.write_text(f"{head}{table}")
    print(f"\n{table}")


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
