"""The latest steps and how long they took, for whoever learns from them."""

from collections import deque
from collections.abc import Iterator

from pdserve.scheduling.step_work import StepWork

# More than an engine computes between two load reports; of a faster one the latest are kept.
_MAX_STEPS = 256


class StepLog:
    """Work and seconds of steps. One thread writes, one takes; what nobody takes is forgotten."""

    def __init__(self) -> None:
        self._steps: deque[tuple[StepWork, float]] = deque(maxlen=_MAX_STEPS)

    def write(self, work: StepWork, seconds: float) -> None:
        """Notes a step that has been computed."""
        self._steps.append((work, seconds))

    def take(self) -> Iterator[tuple[StepWork, float]]:
        """The steps since the last time, the oldest first."""
        while self._steps:
            yield self._steps.popleft()
