"""How a bench goes, live: a bar, and what the latest requests saw."""

import math
import statistics
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from pdserve.bench.record import Record
from pdserve.planner.report.formats import duration, percent
from pdserve.planner.slo import Slo

_LATEST = 200
# Drawing takes time from the requests.
_REFRESHES_PER_S = 2


class BenchProgress:
    """A `Watcher` that draws on stderr, while it is entered and unless that is no terminal."""

    def __init__(self, slo: Slo, *, quiet: bool) -> None:
        self._slo = slo
        self._latest: deque[Record] = deque(maxlen=_LATEST)
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _Words(self.latest),
            console=Console(stderr=True),
            refresh_per_second=_REFRESHES_PER_S,
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> "BenchProgress":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def begin(self, title: str, requests: int) -> None:
        """See `Watcher.begin`."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._latest.clear()
        self._task = self._progress.add_task(title, total=requests)

    def seen(self, record: Record) -> None:
        """See `Watcher.seen`."""
        self._latest.append(record)
        if self._task is not None:
            self._progress.advance(self._task)

    def latest(self) -> str:
        """What the latest requests saw, in a few words."""
        measured = [record for record in self._latest if record.measured]
        if not measured:
            return ""
        met = sum(record.met(self._slo) for record in measured)
        return (
            f"TTFT {_median([record.ttft_s for record in measured])}  "
            f"TPOT {_median([record.tpot_s for record in measured])}  "
            f"met {percent(met / len(measured))}"
        )


class _Words(ProgressColumn):
    """Text that is made when it is drawn, and not with each request."""

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def render(self, task: Task) -> Text:  # noqa: ARG002 - there is one
        return Text(self._words())


def _median(seconds: list[float]) -> str:
    known = [value for value in seconds if not math.isnan(value)]
    return duration(statistics.median(known)) if known else "–"
