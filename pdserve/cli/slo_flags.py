"""Flags of service level objectives."""

import argparse
import math

from pdserve.planner.slo import Slo


def add_slo_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the bounds of TTFT and TPOT and the share of requests that is to meet both."""
    group = parser.add_argument_group("service level objectives")
    group.add_argument(
        "--ttft-ms", type=float, default=math.inf, metavar="MS", help="time to first token"
    )
    group.add_argument(
        "--tpot-ms",
        type=float,
        default=math.inf,
        metavar="MS",
        help="mean time per output token after the first",
    )
    group.add_argument(
        "--attainment",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="share of requests that is to meet both (default: 0.9)",
    )


def load_slo(arguments: argparse.Namespace) -> Slo:
    """The SLOs that the flags name; `ConfigError` names the one that is wrong."""
    return Slo(arguments.ttft_ms / 1e3, arguments.tpot_ms / 1e3, arguments.attainment)
