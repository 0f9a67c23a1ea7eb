"""`pdserve trace`: shows, converts and draws workloads."""

import argparse
import dataclasses
import json

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pdserve.cli.terminal import output_console, write_text
from pdserve.cli.workload_flags import add_drawing_flags, load_drawn_workload, read_reporting
from pdserve.workload.formats import AUTO, FORMATS
from pdserve.workload.operations import (
    clamp_context,
    head,
    repeat,
    thin,
    window,
    without_prefix,
)
from pdserve.workload.summary import LengthSummary, Summary, summarize
from pdserve.workload.workload import Workload
from pdserve.workload.write import write_trace

_CHOICES = (AUTO, *FORMATS)
_EXAMPLES = """\
examples:
  pdserve trace show AzureLLMInferenceTrace_conv.csv
  pdserve trace show conversation_trace.jsonl.gz --json
  pdserve trace convert conversation_trace.jsonl slow.jsonl --rate 2 --limit 5000
  pdserve trace convert BurstGPT_1.csv one_hour.csv --start 3600 --end 7200 --max-context 8192
  pdserve trace convert azure.csv long.csv --repeat 1000000
  pdserve trace draw p.csv --prompt lognormal:mean=755,sigma=1 --output uniform:10-200 --rate 4
  pdserve trace draw bursts.csv --lengths azure.csv --arrivals gamma:cv=3 --rate 4 --requests 5000
  pdserve trace draw chat.jsonl --prompt 200 --output 150 --conversations turns=5,system=1000

formats, told apart by their first line:
  csv       arrival_s,prompt_tokens,output_tokens
  jsonl     the same as keys, prefix_ids with block_tokens where prompts share prefixes, and
            conversation where they are turns of one
  azure     TIMESTAMP,ContextTokens,GeneratedTokens
  mooncake  timestamp (ms), input_length, output_length, hash_ids (blocks of 512 tokens)
  burstgpt  Timestamp (s), Model, Request tokens, Response tokens, Total tokens, Log Type
  router    the log of `pdserve router`, of which the finished requests count (read only)
  bench     what `pdserve bench --json` wrote (read only)
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds `show`, `convert` and `draw` with their flags."""
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_show(_action(actions, "show", "print the figures of a trace"))
    _add_convert(_action(actions, "convert", "write a trace, or a part of it, in another format"))
    _add_draw(_action(actions, "draw", "write a trace of requests that are drawn at random"))


def run(arguments: argparse.Namespace) -> int:
    """Does what `action` says; 0, or an error that names the flag or the line of the file."""
    if arguments.action == "show":
        _show(arguments)
    elif arguments.action == "convert":
        _convert(arguments)
    else:
        _write(load_drawn_workload(arguments), arguments)
    return 0


def summary_view(summary: Summary) -> Group:
    """The figures as two tables: arrivals, and lengths."""
    arrivals = Table(title=Text(summary.name), title_justify="left", show_header=False)
    arrivals.add_column()
    arrivals.add_column(justify="right")
    over = "" if summary.window_s is None else f", windows of {summary.window_s:.4g} s"
    for name, value in (
        ("requests", f"{summary.requests:,}"),
        ("duration, s", f"{summary.duration_s:,.1f}"),
        ("rate, requests/s", _figure(summary.rate)),
        ("CV of inter-arrival times", _figure(summary.arrival_cv)),
        (f"index of dispersion{over}", _figure(summary.dispersion)),
        ("prompt tokens/s", _figure(summary.prompt_tokens_per_s)),
        ("output tokens/s", _figure(summary.output_tokens_per_s)),
        ("prompt tokens in shared prefixes", _percent(summary.shared_prefix)),
    ):
        arrivals.add_row(name, value)
    lengths = Table()
    for name in ("tokens", "mean", "p50", "p90", "p99", "max"):
        lengths.add_column(name, justify="left" if name == "tokens" else "right")
    lengths.add_row("prompt", *_length_cells(summary.prompt_tokens))
    lengths.add_row("output", *_length_cells(summary.output_tokens))
    return Group(arrivals, lengths)


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, description: str
) -> argparse.ArgumentParser:
    examples = [
        line for line in _EXAMPLES.splitlines() if line.startswith(f"  pdserve trace {name}")
    ]
    return actions.add_parser(
        name,
        help=description,
        description=description,
        epilog="\n".join(("examples:", *examples)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the trace; may be .gz")
    _add_format(parser, "--format", "format of FILE (default: its first line tells)")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument(
        "--window",
        type=float,
        metavar="S",
        help="windows of the index of dispersion, seconds (default: ten requests on average)",
    )


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the trace to read; may be .gz")
    parser.add_argument("out", metavar="OUT", help="the trace to write; gzip'd if it ends in .gz")
    _add_format(parser, "--format", "format of OUT (default: csv or jsonl, by its suffix)")
    _add_format(parser, "--from", "format of FILE (default: its first line tells)", "source")
    group = parser.add_argument_group("operations, in this order")
    group.add_argument("--start", type=float, metavar="S", help="requests from this second on")
    group.add_argument("--end", type=float, metavar="S", help="requests before this second")
    group.add_argument("--thin", type=float, metavar="SHARE", help="a random share of the requests")
    group.add_argument("--seed", type=int, default=0, help="of --thin (default: 0)")
    group.add_argument("--limit", type=int, metavar="N", help="the first N requests")
    group.add_argument("--repeat", type=int, metavar="N", help="over and over, until there are N")
    group.add_argument(
        "--max-context",
        type=int,
        metavar="TOKENS",
        help="cut requests to this many tokens of prompt and output together",
    )
    group.add_argument("--drop-prefixes", action="store_true", help="forget shared prefixes")
    group.add_argument("--rate", type=float, metavar="R", help="stretch to R requests per second")


def _add_draw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="the trace to write; gzip'd if it ends in .gz")
    _add_format(parser, "--format", "format of OUT (default: csv or jsonl, by its suffix)")
    add_drawing_flags(parser)


def _add_format(
    parser: argparse.ArgumentParser, flag: str, description: str, dest: str = "format"
) -> None:
    parser.add_argument(flag, dest=dest, default=AUTO, choices=_CHOICES, help=description)


def _show(arguments: argparse.Namespace) -> None:
    workload = read_reporting(arguments.file, arguments.format)
    summary = summarize(workload, arguments.window)
    if arguments.json:
        write_text(json.dumps(dataclasses.asdict(summary), indent=1) + "\n")
    else:
        output_console().print(summary_view(summary))


def _convert(arguments: argparse.Namespace) -> None:
    _write(_operated(read_reporting(arguments.file, arguments.source), arguments), arguments)


def _operated(workload: Workload, arguments: argparse.Namespace) -> Workload:
    if arguments.start is not None or arguments.end is not None:
        end = float("inf") if arguments.end is None else arguments.end
        workload = window(workload, arguments.start or 0.0, end)
    if arguments.thin is not None:
        workload = thin(workload, arguments.thin, arguments.seed)
    if arguments.limit is not None:
        workload = head(workload, arguments.limit)
    if arguments.repeat is not None:
        workload = repeat(workload, arguments.repeat)
    if arguments.max_context is not None:
        workload = clamp_context(workload, arguments.max_context)
    if arguments.drop_prefixes:
        workload = without_prefix(workload)
    return workload if arguments.rate is None else workload.at_rate(arguments.rate)


def _write(workload: Workload, arguments: argparse.Namespace) -> None:
    write_trace(workload, arguments.out, arguments.format)
    rate = f" at {workload.rate:.4g} requests/s" if workload.duration_s > 0 else ""
    output_console().print(
        f"{arguments.out}: {len(workload):,} requests{rate}", markup=False, highlight=False
    )


def _length_cells(lengths: LengthSummary) -> tuple[str, ...]:
    quantiles = (f"{value:,.0f}" for value in (lengths.p50, lengths.p90, lengths.p99, lengths.max))
    return (f"{lengths.mean:,.1f}", *quantiles)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
