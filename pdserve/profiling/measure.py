"""Times shapes again and again until the time is up."""

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pdserve.profiling.shape import Kind, StepShape
from pdserve.profiling.stage import MAX_STEPS

# Short steps are repeated until a visit to their shape has lasted about so long, in seconds.
_VISIT_S = 0.5
# Share of the time after which the first round leaves out shapes that it has not come to, but
# not before each kind has so many: a fit has three coefficients.
_FIRST_ROUND = 0.75
_LEAST_SHAPES = 5


class Timer(Protocol):
    """Computes steps of a shape; `pdserve.profiling.stage.Stage` is one."""

    def time(self, shape: StepShape, steps: int = 1) -> list[float]:
        """Seconds of each of `steps` steps."""
        ...


@dataclass(slots=True)
class Observation:
    """What the steps of one shape took, in seconds; `visit_s` is how long one visit lasts."""

    shape: StepShape
    seconds: list[float] = field(default_factory=list)
    visit_s: float = 0.0

    @property
    def median_s(self) -> float:
        """The median step: a machine that others use as well has outliers, all on one side."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was seen of each shape, and the shapes that there was no time for."""

    observations: Sequence[Observation]
    left_out: Sequence[StepShape]

    def of(self, kind: Kind) -> list[Observation]:
        """The observations of one kind of step."""
        return [each for each in self.observations if each.shape.kind is kind]


class Measuring:
    """Visits shapes in rounds, for about `seconds`; `progress` is told the share that is done."""

    def __init__(
        self,
        timer: Timer,
        seconds: float,
        clock: Callable[[], float],
        progress: Callable[[float], None],
    ) -> None:
        self._timer = timer
        self._seconds = seconds
        self._clock = clock
        self._progress = progress
        self._began = clock()

    def run(self, shapes: Sequence[StepShape]) -> Measurement:
        """The first round takes the cheap shapes of all kinds first; the later ones are shuffled.

        So a machine whose speed drifts is as slow to one shape as to another. A shape whose visit
        would end too late is passed over: dear ones are seen less often, and cheap ones fill the
        time that is left.
        """
        observations, left_out = self._first_round(shapes)
        order = random.Random(0)
        while affordable := [each for each in observations if each.visit_s <= self._left()]:
            order.shuffle(affordable)
            for observation in affordable:
                if observation.visit_s <= self._left():
                    self._visit(observation, _steps(observation.median_s))
        self._progress(1.0)
        return Measurement(observations, left_out)

    def _first_round(
        self, shapes: Sequence[StepShape]
    ) -> tuple[list[Observation], list[StepShape]]:
        observations, left_out = [], []
        for rank, shape in _cheap_first(shapes):
            late = self._left() < (1 - _FIRST_ROUND) * self._seconds
            if late and rank >= _LEAST_SHAPES:
                left_out.append(shape)
                continue
            observation = Observation(shape)
            self._visit(observation, 1)
            observations.append(observation)
        return observations, left_out

    def _visit(self, observation: Observation, steps: int) -> None:
        began = self._clock()
        observation.seconds += self._timer.time(observation.shape, steps)
        observation.visit_s = self._clock() - began
        self._progress(min(1.0, 1 - self._left() / self._seconds))

    def _left(self) -> float:
        return self._began + self._seconds - self._clock()


def _steps(step_s: float) -> int:
    return max(1, min(MAX_STEPS, int(_VISIT_S / step_s)))


def _cheap_first(shapes: Sequence[StepShape]) -> list[tuple[int, StepShape]]:
    """Shapes with their rank within their kind, the same share of each kind at any time."""
    ranked = []
    for kind in Kind:
        members = sorted((each for each in shapes if each.kind is kind), key=_size)
        ranked += [(rank / len(members), rank, shape) for rank, shape in enumerate(members)]
    ranked.sort(key=lambda entry: entry[0])
    return [(rank, shape) for _, rank, shape in ranked]


def _size(shape: StepShape) -> int:
    """An order from cheap to dear, no estimate: tokens computed and tokens attended to."""
    return shape.tokens + sum(shape.lengths)
