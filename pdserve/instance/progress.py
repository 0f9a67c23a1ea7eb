"""Shows on stderr how far a model is loaded: a bar for a person, lines for a log."""

import logging
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

log = logging.getLogger(__name__)

_LOG_EVERY = 0.25


class LoadingProgress:
    """Called with (done, total) while a model loads; a context manager."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._logged = 0.0
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("loading {task.description}"), BarColumn(), TaskProgressColumn())
            self._bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task(model, total=None)

    def __enter__(self) -> "LoadingProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Shows that `done` of `total` is loaded."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif done / total >= self._logged + _LOG_EVERY or done == total:
            self._logged = done / total
            log.info("loading model", extra={"model": self._model, "percent": 100 * done // total})
