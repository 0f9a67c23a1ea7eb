"""The three things a bench does: go through rates, seek the knee, compare two targets."""

from collections import defaultdict
from collections.abc import Sequence

from pdserve.bench.comparison import compare, rounds_order
from pdserve.bench.knee import Sweep, find_knee
from pdserve.bench.results import Point, RateComparison, Results
from pdserve.bench.session import Prepared, Session, Slice
from pdserve.bench.summary import summarize
from pdserve.planner.slo import Slo


async def run_rates(
    session: Session, prepared: Prepared, rates: Sequence[float], slo: Slo
) -> Results:
    """One point at each rate, as far as it was not stopped."""
    slices = [await session.run(prepared, rate) for rate in rates if not session.stopped]
    return Results((prepared,), slo, tuple(_point([each], slo) for each in slices))


async def run_sweep(session: Session, prepared: Prepared, sweep: Sweep, slo: Slo) -> Results:
    """As many points as it takes to find the knee."""
    points: list[Point] = []

    async def meets(rate: float) -> bool | None:
        point = _point([await session.run(prepared, rate)], slo)
        points.append(point)
        return None if session.stopped else point.summary.attainment.value >= slo.attainment

    knee = await find_knee(sweep, meets)
    ordered = sorted(points, key=lambda point: point.summary.rate)
    return Results((prepared,), slo, tuple(ordered), knee)


async def run_comparison(
    session: Session, pair: tuple[Prepared, Prepared], rates: Sequence[float], rounds: int, slo: Slo
) -> Results:
    """At each rate rounds of the same requests to both, in turn; the order turns round each time.

    Arrivals and lengths of a round are the same for both, while each has prompts of its own: two
    names of one server would find each other's in the prefix cache. Of what was stopped there are
    points, but only whole rounds are compared.
    """
    points: list[Point] = []
    comparisons: list[RateComparison] = []
    for rate in rates:
        slices = defaultdict[int, list[Slice]](list)
        whole = 0
        for number in range(rounds):
            for which in rounds_order(number):
                if not session.stopped:
                    slices[which].append(await session.run(pair[which], rate, number))
            whole += not session.stopped
        points += [_point(slices[which], slo) for which in sorted(slices)]
        a, b = ([_point([each], slo).summary for each in slices[n][:whole]] for n in (0, 1))
        comparisons.append(RateComparison(rate, tuple(compare(a, b))))
    points.sort(key=lambda point: point.summary.target != pair[0].target.name)
    return Results(pair, slo, tuple(points), comparisons=tuple(comparisons))


def _point(slices: Sequence[Slice], slo: Slo) -> Point:
    summary = summarize(slices[0].rate, [each.run for each in slices], slo)
    return Point(summary, tuple(slices))
