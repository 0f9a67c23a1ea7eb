"""Flags that choose how text is generated, as options of a request."""

import argparse

from pdserve.client import Options

_MAX_TOKENS = 256


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; the router checks the values."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--max-tokens", type=int, default=_MAX_TOKENS, help="longest answer (default: %(default)s)"
    )
    group.add_argument("--min-tokens", type=int, default=0, help="shortest answer")
    group.add_argument(
        "--temperature", type=float, default=0.0, help="0 is greedy (default: %(default)s)"
    )
    group.add_argument("--top-k", type=int, default=0, help="most likely tokens kept; 0: all")
    group.add_argument("--top-p", type=float, default=1.0, help="probability mass kept")
    group.add_argument("--min-p", type=float, default=0.0, help="least relative probability kept")
    group.add_argument("--repetition-penalty", type=float, default=1.0, help="1: none")
    group.add_argument("--presence-penalty", type=float, default=0.0, help="0: none")
    group.add_argument("--frequency-penalty", type=float, default=0.0, help="0: none")
    group.add_argument("--seed", type=int, help="same seed, same answer (default: drawn)")
    group.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end here; may be repeated"
    )
    group.add_argument("--ignore-eos", action="store_true", help="go on at the model's end tokens")


def options_from(arguments: argparse.Namespace) -> Options:
    """What the flags say of a request, its sampling and when it ends."""
    return Options(
        max_tokens=arguments.max_tokens,
        min_tokens=arguments.min_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        presence_penalty=arguments.presence_penalty,
        frequency_penalty=arguments.frequency_penalty,
        seed=arguments.seed,
        stop=arguments.stop,
        ignore_eos=arguments.ignore_eos,
        model=arguments.model or "",
        timeout_s=arguments.timeout_s,
    )
