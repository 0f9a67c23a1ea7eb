"""The command `pdserve`: finds the subcommand, runs it, and turns errors into one sentence."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pdserve import __version__
from pdserve.errors import ConfigError, PdserveError

_ERROR, _USAGE, _INTERRUPTED, _READER_GONE = 1, 2, 130, 141
_HINT = "`pdserve COMMAND --help` shows the options of a command."


@dataclass(frozen=True, slots=True)
class _Command:
    """A subcommand: the module with its `add_flags` and `run`, and a line of help."""

    module: str
    description: str


_COMMANDS = {
    "up": _Command("up", "start a local cluster and keep it until Ctrl-C"),
    "generate": _Command("generate", "answer one prompt"),
    "chat": _Command("chat", "talk with the model"),
    "models": _Command("models", "list the models that the router serves"),
    "status": _Command("status", "show the cluster as the router sees it"),
    "explain": _Command("explain", "tell where a request's time went, and why it ran where it did"),
    "profile": _Command("profile", "measure what prefill and decode cost on this machine"),
    "plan": _Command(
        "plan", "find which instances to run, and where, for the most goodput per GPU"
    ),
    "bench": _Command("bench", "put a server under load and measure what its clients see"),
    "simulate": _Command("simulate", "predict what requests see on given instances"),
    "prefill": _Command("instance", "run one prefill instance"),
    "decode": _Command("instance", "run one decode instance"),
    "router": _Command("router", "run the router"),
    "trace": _Command("trace", "show, convert and draw workloads"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `pdserve` with `arguments` (default: the command line); returns the exit status.

    0: done. 1: an error. 2: wrong usage. 130: Ctrl-C. 141: whoever read the output has gone.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # gRPC's C core writes routine events, such as a peer's goodbye, straight to stderr.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    command = next((word for word in words if word in _COMMANDS), None)
    try:
        parser, run = _parser(command)
        parsed = parser.parse_args(words)
        return run(parsed)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # As with `| head`. What is buffered is flushed at exit, into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE
    except UnicodeError as error:
        print(f"error: text that is not UTF-8: {error}", file=sys.stderr)
        return _ERROR
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE
    except PdserveError as error:
        print(f"error: {error}", file=sys.stderr)
        return _ERROR


def _parser(command: str | None) -> tuple[argparse.ArgumentParser, Callable[..., int]]:
    """The parser, with the flags of the one subcommand that was asked for, and its function.

    Only that subcommand's module is imported: a client must start fast, and without torch.
    """
    parser = argparse.ArgumentParser(
        prog="pdserve",
        description="Serves large language models with prefill and decode apart.",
        epilog=_HINT,
    )
    parser.add_argument("--version", action="version", version=f"pdserve {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run: Callable[..., int] = _no_command
    for name, entry in _COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=entry.description, description=entry.description, allow_abbrev=False
        )
        if name == command:
            module = importlib.import_module(f"pdserve.cli.{entry.module}")
            module.add_flags(subparser)
            run = module.run
    return parser, run


def _no_command(arguments: argparse.Namespace) -> int:
    raise ConfigError(f"unknown command {arguments.command!r}")
