"""`pdserve profile`: measures the engine on this machine for the planner."""

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pdserve.cli.terminal import output_console
from pdserve.config import InstanceConfig
from pdserve.errors import ConfigError
from pdserve.latency.cost import DecodeCost, InstanceCost
from pdserve.latency.profile import Profile, write_profile
from pdserve.options import add_options, load

if TYPE_CHECKING:  # the command must show its help, and its error, without torch
    from pdserve.profiling.profiler import Report

# An instance that serves nobody has no use for these.
_SERVING = (
    "name",
    "host",
    "advertise_host",
    "port",
    "metrics_port",
    "max_waiting",
    "prefix_cache",
    "layer_group",
    "segment_timeout_s",
    "connect_timeout_s",
    "lease_s",
    "report_interval_s",
    "step_timeout_s",
    "drain_grace_s",
    "log_level",
)
_BAD_FIT = 0.2
# Tokens of the prompt and of the contexts for which a speed is shown.
_EXAMPLE = 512


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds where to write, how long to measure, and the options of an instance."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("profile.json"),
        metavar="FILE",
        help="where the profile goes (default: profile.json)",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="how long to measure, about; longer means more repeats (default: 60)",
    )
    add_options(parser, InstanceConfig, without=_SERVING)


def run(arguments: argparse.Namespace) -> int:
    """Measures, writes the profile, and prints what it says and how far to trust it."""
    config = load(InstanceConfig, arguments, os.environ)
    _check_output(arguments.output)
    report = _measure(config, arguments.seconds)
    write_profile(report.profile, arguments.output)
    console = output_console()
    console.print(costs_table(report.profile))
    console.print(errors_table(report))
    for warning in warnings(report):
        console.print(f"[yellow]warning:[/] {warning}", highlight=False, soft_wrap=True)
    console.print(f"written to {arguments.output}", markup=False, highlight=False, soft_wrap=True)
    return 0


def costs_table(profile: Profile) -> Table:
    """The coefficients at TP 1, and the speed that they mean."""
    cost = profile.instance(1, 1)
    title = f"{profile.model} on {profile.gpu}: {cost.kv_tokens} tokens of KV"
    table = Table("step", "base, ms", "each, µs", "tokens/s", title=title, title_justify="left")
    prefill = cost.prefill
    table.add_row(
        "prefill",
        _figure(1e3 * prefill.base_s),
        _each(token=prefill.per_token_s, square=prefill.per_square_s),
        f"{_figure(_EXAMPLE / cost.prefill_s(_EXAMPLE))} for a prompt of {_EXAMPLE}",
    )
    for name, line, batch in _decode_lines(cost):
        speed = batch / cost.decode_s(batch, batch * _EXAMPLE)
        table.add_row(
            name,
            _figure(1e3 * line.base_s),
            _each(sequence=line.per_sequence_s, context_token=line.per_context_token_s),
            f"{_figure(speed)} for {batch} with a context of {_EXAMPLE} each",
        )
    return table


def errors_table(report: "Report") -> Table:
    """How far the costs are from the steps that were measured."""
    table = Table(title="relative error of the fit", title_justify="left")
    for column in ("step", "median", "p90", "max", "bias", "shapes", "steps timed"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for kind, errors in report.fitted.errors.items():
        shares = (errors.median, errors.p90, errors.maximum)
        table.add_row(
            kind,
            *(f"{share:.1%}" for share in shares),
            f"{errors.bias:+.1%}",
            str(errors.shapes),
            str(errors.steps),
        )
    return table


def warnings(report: "Report") -> Iterator[str]:
    """What makes the profile less than trustworthy, in sentences."""
    for kind, errors in report.fitted.errors.items():
        if errors.median > _BAD_FIT:
            yield (
                f"half of the {kind} steps are predicted with an error above {errors.median:.0%}; "
                "measure on an idle machine, or longer (--seconds)"
            )
    left_out = report.measurement.left_out
    if left_out:
        yield (
            f"{len(left_out)} of the largest steps were left out for lack of time; give more "
            "(--seconds), or lower --max-model-len to what you serve"
        )


def _decode_lines(cost: InstanceCost) -> Iterator[tuple[str, DecodeCost, int]]:
    """A name, the costs and an example's batch size for each regime of decode."""
    if cost.decode == cost.decode_large:
        yield "decode", cost.decode, 1
    else:
        yield f"decode, below {cost.large_from}", cost.decode, 1
        yield f"decode, from {cost.large_from}", cost.decode_large, cost.large_from


def _each(**seconds: float) -> str:
    return "\n".join(
        f"{_figure(1e6 * value)} a {name.replace('_', ' ')}" for name, value in seconds.items()
    )


def _figure(value: float) -> str:
    """Three digits that count, and all of a large number."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _measure(config: InstanceConfig, seconds: float) -> "Report":
    try:
        from pdserve.profiling.profiler import profile_instance
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError(
            "`pdserve profile` runs a model and needs torch: pip install 'pdserve[engine]'"
        ) from error
    columns = (TextColumn("measuring"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task("measuring", total=1.0)

    def progress(share: float) -> None:
        bar.start()  # only now: loading has a bar of its own
        bar.update(task, completed=share)

    try:
        return profile_instance(config, seconds, time.perf_counter, progress)
    finally:
        bar.stop()


def _check_output(path: Path) -> None:
    """Raises `ConfigError` where the profile could not be written: before minutes are spent."""
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"output is {path}; it cannot be written", field="output")


def _seconds(text: str) -> float:
    """A time to measure; argparse names the flag in the error."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds in [1, 86400]")
    return seconds
