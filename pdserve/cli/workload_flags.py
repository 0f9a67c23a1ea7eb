"""Flags that name a workload, recorded or drawn, and the workload that they name."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pdserve.errors import ConfigError
from pdserve.workload.draw import WorkloadSpec, draw_workload
from pdserve.workload.formats import AUTO, FORMATS
from pdserve.workload.lengths import EmpiricalLengths, IndependentLengths, RequestLengths
from pdserve.workload.operations import clamp_context, head
from pdserve.workload.read import read_trace_file
from pdserve.workload.spec_text import (
    ARRIVALS_FORMS,
    CONVERSATIONS_FORM,
    LENGTHS_FORMS,
    parse_arrivals,
    parse_conversations,
    parse_lengths,
)
from pdserve.workload.workload import Workload

_DEFAULT_REQUESTS = 1000
_RATE_HELP = "mean requests per second (default: the trace's; 1 or what --arrivals says)"
_DRAWING = ("arrivals", "prompt", "output", "lengths", "conversations", "requests", "seed")

# For the help of commands that take a workload.
WORKLOAD_EXAMPLES = """\
workloads:
  --trace azure_conv.csv --rate 4
  --trace mooncake.jsonl.gz --limit 1000
  --prompt 512 --output 64 --rate 2
  --prompt lognormal:mean=755,sigma=1 --output uniform:10-200 --arrivals gamma:cv=3 --rate 4
  --lengths azure_conv.csv --arrivals onoff:on=10,off=1,on_s=20,off_s=40 --requests 5000
  --prompt 200 --output 150 --conversations turns=5,think_s=60,system=1000 --rate 3
"""


def add_workload_flags(
    parser: argparse.ArgumentParser,
    rate: Callable[[str], object] = float,
    rate_help: str = _RATE_HELP,
) -> None:
    """Adds the flags of a workload: `--trace` and its kin, or those that describe one to draw.

    `rate` reads the value of `--rate`, for commands that take more than a number.
    """
    group = parser.add_argument_group("workload from a trace")
    group.add_argument("--trace", metavar="FILE", help="requests that were recorded; may be .gz")
    group.add_argument(
        "--trace-format",
        default=AUTO,
        choices=(AUTO, *FORMATS),
        help="format of the trace (default: the first line tells)",
    )
    group.add_argument("--limit", type=int, metavar="N", help="only the first N requests")
    add_drawing_flags(parser, rate, rate_help)


def add_drawing_flags(
    parser: argparse.ArgumentParser,
    rate: Callable[[str], object] = float,
    rate_help: str = _RATE_HELP,
) -> None:
    """Adds the flags that describe a workload to draw, and those that apply to any."""
    group = parser.add_argument_group("workload that is drawn")
    group.add_argument("--prompt", metavar="SPEC", help=f"prompt tokens: {LENGTHS_FORMS}")
    group.add_argument("--output", metavar="SPEC", help="output tokens, in the same forms")
    group.add_argument(
        "--lengths",
        metavar="FILE",
        help="trace to draw prompts and outputs from, together, instead of --prompt and --output",
    )
    group.add_argument(
        "--arrivals", metavar="SPEC", help=f"{ARRIVALS_FORMS}; the rates in 1/s (default: poisson)"
    )
    group.add_argument(
        "--conversations",
        metavar="SPEC",
        help=f"several turns that share a growing prefix: any of {CONVERSATIONS_FORM}; "
        "--prompt is then what each turn adds",
    )
    group.add_argument(
        "--requests", type=int, metavar="N", help=f"how many (default: {_DEFAULT_REQUESTS})"
    )
    group.add_argument("--seed", type=int, help="same seed, same workload (default: 0)")
    group = parser.add_argument_group("any workload")
    group.add_argument("--rate", type=rate, metavar="R", help=rate_help)
    group.add_argument(
        "--max-context",
        type=int,
        metavar="TOKENS",
        help="cut requests to this many tokens of prompt and output together",
    )


def load_workload(arguments: argparse.Namespace) -> Workload:
    """The workload that the flags of `add_workload_flags` name.

    A trace is limited, cut and then stretched to the rate. Requests of it that failed are left out,
    which a line on stderr says. Raises `ConfigError` naming the flag, or the line of the file.
    """
    if arguments.trace is None:
        if arguments.limit is not None:
            raise ConfigError("--limit goes with --trace; see --requests", field="limit")
        return load_drawn_workload(arguments)
    for name in _DRAWING:
        if getattr(arguments, name) is not None:
            raise ConfigError(f"--{name} does not go with --trace", field=name)
    workload = read_reporting(arguments.trace, arguments.trace_format)
    if arguments.limit is not None:
        workload = head(workload, arguments.limit)
    if arguments.max_context is not None:
        workload = clamp_context(workload, arguments.max_context)
    return workload if arguments.rate is None else workload.at_rate(arguments.rate)


def load_drawn_workload(arguments: argparse.Namespace) -> Workload:
    """The workload that the flags of `add_drawing_flags` describe; `ConfigError` names the flag."""
    requests, seed = arguments.requests, arguments.seed
    conversations = arguments.conversations
    spec = WorkloadSpec(
        requests=_DEFAULT_REQUESTS if requests is None else requests,
        lengths=_lengths(arguments),
        arrivals=parse_arrivals(arguments.arrivals or "poisson", "--arrivals"),
        rate=arguments.rate,
        conversations=(
            None if conversations is None else parse_conversations(conversations, "--conversations")
        ),
        seed=0 if seed is None else seed,
    )
    workload = draw_workload(spec)
    if arguments.max_context is not None:
        workload = clamp_context(workload, arguments.max_context)
    return workload


def read_reporting(path: str | Path, trace_format: str) -> Workload:
    """Reads a trace; says on stderr how many failed requests were left out."""
    file = read_trace_file(path, trace_format)
    if file.failed:
        text = f"note: {path}: failed requests (0 tokens) left out: {file.failed}"
        print(text, file=sys.stderr)
    return file.workload


def _lengths(arguments: argparse.Namespace) -> RequestLengths:
    prompt, output, trace = arguments.prompt, arguments.output, arguments.lengths
    if trace is not None:
        if prompt is not None or output is not None:
            text = "--lengths does not go with --prompt and --output"
            raise ConfigError(text, field="lengths")
        return EmpiricalLengths(read_reporting(trace, AUTO))
    if prompt is None or output is None:
        missing = "prompt" if prompt is None else "output"
        either = "--trace FILE, or " if hasattr(arguments, "trace") else ""
        text = f"no --{missing}: a workload is {either}--prompt and --output, or --lengths FILE"
        raise ConfigError(text, field=missing)
    return IndependentLengths(parse_lengths(prompt, "--prompt"), parse_lengths(output, "--output"))
