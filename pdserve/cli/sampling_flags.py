"""Flags that choose how text is generated, and the messages made of them."""

import argparse

from pdserve.errors import InvalidRequestError
from pdserve.rpc.v1 import router_pb2, types_pb2
from pdserve.sampling import MAX_COUNT

_MAX_TOKENS = 256
_MAX_SEED = 2**64 - 1
_NUMBERS = (
    "max_tokens",
    "min_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
)


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


def request_from(arguments: argparse.Namespace) -> router_pb2.GenerateRequest:
    """A request without input. Raises `InvalidRequestError` for what its fields cannot hold."""
    sampling = types_pb2.Sampling(ignore_eos=arguments.ignore_eos)
    for name in _NUMBERS:
        value = getattr(arguments, name)
        if value is not None:
            try:
                setattr(sampling, name, value)
            except ValueError as error:
                limit = f"[0, {_MAX_SEED if name == 'seed' else MAX_COUNT}]"
                text = f"{name} is {value}; it must lie in {limit}"
                raise InvalidRequestError(text, field=name, limit=limit) from error
    return router_pb2.GenerateRequest(sampling=sampling, stop=arguments.stop)
