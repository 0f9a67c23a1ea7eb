"""Time is spent on what there is time for."""

from collections import Counter

from known_cost import Clock

from pdserve.profiling.measure import Measuring
from pdserve.profiling.shape import Kind, Prompt, StepShape

DECODES = [StepShape(contexts=(context,)) for context in range(1, 21)]
PREFILLS = [StepShape((Prompt(new),)) for new in range(2, 22)]


class Timer:
    """A step takes a second for each of `costs`, and is noted."""

    def __init__(self, clock: Clock, cost_s: float) -> None:
        self.visits: list[tuple[StepShape, int]] = []
        self._clock = clock
        self._cost_s = cost_s

    def time(self, shape: StepShape, steps: int = 1) -> list[float]:
        self.visits.append((shape, steps))
        self._clock.now += steps * self._cost_s
        return [self._cost_s] * steps


def measure(shapes, seconds, cost_s):
    clock = Clock()
    timer = Timer(clock, cost_s)
    shares: list[float] = []
    measurement = Measuring(timer, seconds, clock, shares.append).run(shapes)
    return measurement, timer, clock, shares


def test_the_time_is_used_and_not_exceeded() -> None:
    _, _, clock, shares = measure(DECODES, 100.0, 0.5)
    assert 99.0 < clock.now <= 100.0
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_every_shape_is_visited_in_every_round() -> None:
    _, timer, _, _ = measure(DECODES, 100.0, 0.5)
    visits = Counter(shape for shape, _ in timer.visits)
    assert max(visits.values()) - min(visits.values()) <= 1
    first, second = timer.visits[:20], timer.visits[20:40]
    assert {shape for shape, _ in second} == set(DECODES)
    assert first != second, "each round has an order of its own"


def test_short_steps_are_repeated_in_a_visit() -> None:
    _, timer, _, _ = measure(DECODES, 10.0, 0.01)
    assert {steps for _, steps in timer.visits[20:]} == {5}


def test_without_time_the_smallest_of_each_kind_are_measured_and_the_rest_is_named() -> None:
    measurement, _, _, _ = measure(DECODES + PREFILLS, 1.0, 10.0)
    for kind, shapes in ((Kind.DECODE, DECODES), (Kind.PREFILL, PREFILLS)):
        assert [each.shape for each in measurement.of(kind)] == shapes[:5]
    assert len(measurement.left_out) == 30


def test_the_median_bears_outliers() -> None:
    measurement, _, _, _ = measure(DECODES, 100.0, 0.5)
    observation = measurement.observations[0]
    observation.seconds[0] = 1000.0
    assert observation.median_s == 0.5
