"""`pdserve bench`: what a server does under a load that does not wait for it."""

import argparse
import asyncio
import secrets
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from pdserve.bench.comparison import check_rounds
from pdserve.bench.descriptors import most_connections
from pdserve.bench.experiment import run_comparison, run_rates, run_sweep
from pdserve.bench.json_lines import write_json_lines
from pdserve.bench.load import Load
from pdserve.bench.open_loop import Bounds
from pdserve.bench.results import Results
from pdserve.bench.session import Prepared, Session
from pdserve.bench.target import Facts, Target
from pdserve.cli.bench_load import add_load_flags, is_conversing, load_load, load_sweep
from pdserve.cli.bench_progress import BenchProgress
from pdserve.cli.bench_targets import COMPARE_API_KEY, add_target_flags, load_targets
from pdserve.cli.bench_view import bench_view
from pdserve.cli.client import API_KEY, add_timeout_flag
from pdserve.cli.slo_flags import add_slo_flags, load_slo
from pdserve.cli.terminal import output_console
from pdserve.cli.workload_flags import WORKLOAD_EXAMPLES
from pdserve.errors import ConfigError, UnauthenticatedError
from pdserve.planner.slo import Slo

_INTERRUPTED = 130
_MOST_IN_FLIGHT = 4096
_EXAMPLES = f"""\
examples:
  pdserve bench --url http://127.0.0.1:8000/v1 --prompt 512 --output 64 --rate 2 \\
      --ttft-ms 500 --tpot-ms 50
  pdserve bench --router 127.0.0.1:7700 --prompt lognormal:mean=755,sigma=1 --output 200 \\
      --rate 1,2,4,8 --duration 120 --ttft-ms 500 --tpot-ms 50 --json run.jsonl --plot run.html
  pdserve bench --url http://127.0.0.1:8000/v1 --trace azure_conv.csv --sweep 0.5..32 \\
      --duration 60 --ttft-ms 500 --tpot-ms 50
  pdserve bench --url http://127.0.0.1:8000/v1 --compare 127.0.0.1:7700 --rounds 6 \\
      --prompt 512 --output 64 --rate 2 --duration 30
  pdserve bench --url http://127.0.0.1:8000/v1 --api chat --prompt 200 --output 150 \\
      --conversations turns=5,think_s=20,system=500 --rate 1

The file of --json is a trace too: `pdserve plan --trace run.jsonl`, `pdserve trace show run.jsonl`.
API keys are taken from the variables PDSERVE_API_KEY and, for --compare, PDSERVE_COMPARE_API_KEY.

{WORKLOAD_EXAMPLES}"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds targets, load, SLOs, and what to do with the results."""
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_target_flags(parser)
    add_load_flags(parser)
    add_slo_flags(parser)
    add_timeout_flag(parser)
    group = parser.add_argument_group("generator")
    group.add_argument(
        "--max-in-flight",
        type=int,
        default=_MOST_IN_FLIGHT,
        metavar="N",
        help="requests that run at once; what is due beyond is counted, not sent "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--warmup",
        type=int,
        default=4,
        metavar="N",
        help="requests to send first and forget (default: %(default)s)",
    )
    group.add_argument(
        "--prompt-seed",
        type=int,
        metavar="N",
        help="same seed, same contents of prompts (default: --seed, or else drawn, so that no "
        "prefix cache has seen them)",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--json", type=Path, metavar="FILE", help="everything, as JSON Lines")
    group.add_argument("--plot", type=Path, metavar="FILE", help="a page with plots (HTML)")
    group.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Sends, measures and prints; 0 unless no request at all was answered (1), or Ctrl-C (130)."""
    slo = load_slo(arguments)
    load = load_load(arguments)
    _check(arguments)
    seed = _prompt_seed(arguments)
    targets = load_targets(arguments, slo, conversing=is_conversing(load))
    with BenchProgress(slo, quiet=arguments.quiet) as progress:
        results, stopped = asyncio.run(_bench(arguments, targets, load, slo, seed, progress))
    output_console().print(bench_view(results))
    _write(results, arguments, seed)
    if stopped:
        return _INTERRUPTED
    return 0 if results.answered else 1


async def _bench(
    arguments: argparse.Namespace,
    targets: Sequence[Target],
    load: Load,
    slo: Slo,
    seed: int,
    progress: BenchProgress,
) -> tuple[Results, bool]:
    """What was found, and whether it was cut short."""
    stop = asyncio.Event()
    session = Session(load, _bounds(arguments), seed, stop, progress)
    try:
        prepared = [Prepared(target, await _facts(target)) for target in targets]
        with _stopped_by_signals(stop):
            for each in prepared:
                await session.warm_up(each, arguments.warmup)
            results = await _measured(arguments, session, prepared, load, slo)
        return results, stop.is_set()
    finally:
        for target in targets:
            await target.close()


async def _facts(target: Target) -> Facts:
    try:
        return await target.prepare()
    except UnauthenticatedError as error:
        text = f"{error}; keys are taken from the variables {API_KEY} and {COMPARE_API_KEY}"
        raise UnauthenticatedError(text) from error


async def _measured(
    arguments: argparse.Namespace,
    session: Session,
    prepared: Sequence[Prepared],
    load: Load,
    slo: Slo,
) -> Results:
    rates = arguments.rate or (load.rate,)
    if arguments.sweep is not None:
        return await run_sweep(session, prepared[0], load_sweep(arguments), slo)
    if len(prepared) > 1:
        pair = (prepared[0], prepared[1])
        return await run_comparison(session, pair, rates, arguments.rounds, slo)
    return await run_rates(session, prepared[0], rates, slo)


@contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """The first Ctrl-C ends the run, a second one the command."""
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    signals = (signal.SIGINT, signal.SIGTERM)
    for each in signals:
        loop.add_signal_handler(each, on_signal, each)
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)


def _bounds(arguments: argparse.Namespace) -> Bounds:
    in_flight = min(arguments.max_in_flight, most_connections())
    return Bounds(arguments.timeout_s, in_flight)


def _prompt_seed(arguments: argparse.Namespace) -> int:
    given: int | None = arguments.prompt_seed
    given = arguments.seed if given is None else given
    return secrets.randbits(32) if given is None else given


def _check(arguments: argparse.Namespace) -> None:
    """Raises `ConfigError` for flags that do not go together, or out of range."""
    if arguments.sweep is not None:
        load_sweep(arguments)
        for other in ("rate", "compare"):
            if getattr(arguments, other) is not None:
                raise ConfigError(f"--sweep does not go with --{other}", field="sweep")
    if arguments.compare is not None:
        check_rounds(arguments.rounds)
    for name, least in (("max_in_flight", 1), ("warmup", 0), ("prompt_seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            text = f"{name} is {value}; it must be at least {least}"
            raise ConfigError(text, field=name, limit=f">= {least}")
    if arguments.plot is not None and find_spec("plotly") is None:
        text = "--plot needs plotly: pip install 'pdserve[planner]'"
        raise ConfigError(text, field="plot")
    for name in ("json", "plot"):
        path: Path | None = getattr(arguments, name)
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise ConfigError(f"--{name} {path}: no file can be there", field=name)


def _write(results: Results, arguments: argparse.Namespace, seed: int) -> None:
    """Writes the files that were asked for."""
    if arguments.json is not None:
        flags = {name: value for name, value in vars(arguments).items() if value is not None}
        asked = {name: _plain(value) for name, value in flags.items()} | {"prompt_seed": seed}
        write_json_lines(results, asked, arguments.json)
    if arguments.plot is not None:
        from pdserve.bench.page import write_bench_page

        write_bench_page(results, arguments.plot)


def _plain(value: object) -> object:
    """A flag's value as JSON holds it."""
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, str | int | float | bool) else str(value)
