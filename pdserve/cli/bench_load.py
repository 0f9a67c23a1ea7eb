"""Flags of what `pdserve bench` sends, at which rates, and for how long."""

import argparse
import math

from pdserve.bench.knee import Sweep
from pdserve.bench.load import Amount, DrawnLoad, Load, TraceLoad
from pdserve.cli.workload_flags import add_workload_flags, load_workload
from pdserve.workload.spec_text import parse_arrivals
from pdserve.workload.workload import Workload

_DEFAULT_DURATION_S = 60.0
# Small enough that prompts share what they have in common, and not only long parts of it.
_BLOCK_TOKENS = 16


def add_load_flags(parser: argparse.ArgumentParser) -> None:
    """Adds rates, durations, and the flags of a workload."""
    group = parser.add_argument_group("rates")
    group.add_argument(
        "--sweep",
        type=_sweep_range,
        metavar="LOW..HIGH",
        help="double the rate from LOW, then bisect, for the highest one that meets --attainment",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="how exactly --sweep looks (default: %(default)g)",
    )
    group.add_argument(
        "--duration",
        type=float,
        metavar="S",
        help="how long requests are sent at each rate (default: the whole trace; "
        f"{_DEFAULT_DURATION_S:g} where they are drawn and there are no --requests)",
    )
    group.add_argument(
        "--rounds",
        type=int,
        default=4,
        metavar="N",
        help="times that --compare goes to both at each rate (default: %(default)s)",
    )
    add_workload_flags(
        parser,
        rate=_rates,
        rate_help="mean requests per second, or several with commas, one after the other "
        "(default: the trace's; 1 or what --arrivals says)",
    )


def load_load(arguments: argparse.Namespace) -> Load:
    """The workload that the flags name, at any rate; `ConfigError` names the flag."""
    amount = Amount(arguments.requests, arguments.duration)
    if arguments.trace is not None:
        trace = load_workload(_with(arguments, rate=None))
        return TraceLoad(trace, amount)
    arrivals = parse_arrivals(arguments.arrivals or "poisson", "--arrivals")
    if arguments.requests is None and arguments.duration is None:
        amount = Amount(duration_s=_DEFAULT_DURATION_S)

    def draw(requests: int, rate: float, number: int) -> Workload:
        seed = (arguments.seed or 0) + number
        return load_workload(_with(arguments, requests=requests, rate=rate, seed=seed))

    draw(1, arrivals.default_rate, 0)  # what is wrong is said now, and not after minutes
    return DrawnLoad(draw, arrivals.default_rate, amount)


def is_conversing(load: Load) -> bool:
    """Whether its requests are turns of conversations."""
    return load.at(load.rate, 0).conversation is not None


def _with(arguments: argparse.Namespace, **changes: object) -> argparse.Namespace:
    """The flags with some others; conversations have fine blocks unless they say how fine."""
    changed = argparse.Namespace(**vars(arguments) | changes)
    if changed.conversations is not None and "block=" not in changed.conversations:
        given = f"{changed.conversations}," if changed.conversations else ""
        changed.conversations = f"{given}block={_BLOCK_TOKENS}"
    return changed


def load_sweep(arguments: argparse.Namespace) -> Sweep:
    """The rates of `--sweep`, which is given; `ConfigError` for values out of range."""
    low, high = arguments.sweep
    return Sweep(low, high, arguments.tolerance)


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(piece) for piece in text.split(","))
    except ValueError:
        rates = ()
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate above 0, or several with commas")
    return rates


def _sweep_range(text: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    try:
        if dots:
            return float(low), float(high)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not LOW..HIGH, such as 0.5..32")
