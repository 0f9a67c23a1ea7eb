"""Flags that say how urgent a request is, as options of it."""

import argparse

from pdserve.client import Options, Priority, Slo


def add_terms_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; the router checks the values."""
    group = parser.add_argument_group("objectives")
    group.add_argument("--ttft-ms", type=float, metavar="MS", help="time to first token")
    group.add_argument("--tpot-ms", type=float, metavar="MS", help="time per further token")
    group.add_argument(
        "--hard",
        action=argparse.BooleanOptionalAction,
        help="refuse the request where it is predicted to miss them",
    )
    group.add_argument(
        "--priority",
        choices=[str(each) for each in Priority],
        default=str(Priority.NORMAL),
        help="who goes first where requests wait (default: %(default)s)",
    )


def terms_from(arguments: argparse.Namespace) -> Options:
    """What the flags say of a request."""
    slo = Slo(arguments.ttft_ms, arguments.tpot_ms, arguments.hard)
    return Options(slo=slo, priority=Priority(arguments.priority))
