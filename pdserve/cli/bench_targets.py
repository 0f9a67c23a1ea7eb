"""Flags that name what `pdserve bench` puts under load, and the targets that they name."""

import argparse
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pdserve.address import is_host_port
from pdserve.api_keys import bearer
from pdserve.bench.grpc_target import GrpcOptions, GrpcTarget
from pdserve.bench.http_target import HttpOptions, HttpTarget
from pdserve.bench.target import ORDINARY_TOKENS, Target, TokenRange
from pdserve.cli.client import API_KEY, DEFAULT_ROUTER, add_tls_flags, router_tls
from pdserve.errors import ConfigError
from pdserve.planner.slo import Slo
from pdserve.rpc.v1 import types_pb2

COMPARE_API_KEY = "PDSERVE_COMPARE_API_KEY"


@dataclass(frozen=True, slots=True)
class _Place:
    """A target as it is named: an address, or a URL."""

    text: str
    is_url: bool
    model: str
    key: str


def add_target_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what is under load and how it is asked."""
    group = parser.add_argument_group("target")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--url", metavar="URL", help="OpenAI-compatible API, such as http://127.0.0.1:8000/v1"
    )
    where.add_argument(
        "--router",
        metavar="ADDRESS",
        help=f"pdserve router, by gRPC (default, without --url: {DEFAULT_ROUTER})",
    )
    group.add_argument(
        "--compare",
        metavar="TARGET",
        help="URL or host:port of a second one, which gets the same load in turn",
    )
    group.add_argument("--model", default="", help="what is asked for (default: the first served)")
    group.add_argument(
        "--compare-model", default="", metavar="MODEL", help="the same for --compare"
    )
    group.add_argument(
        "--api",
        choices=("completions", "chat"),
        default="completions",
        help="endpoint of a URL (default: %(default)s)",
    )
    group.add_argument(
        "--prompts",
        choices=("ids", "text"),
        help="token ids have exact lengths; words are what chat and conversations over HTTP "
        "take (default: ids where that works)",
    )
    group.add_argument(
        "--token-ids",
        type=_token_range,
        default=ORDINARY_TOKENS,
        metavar="LOW-HIGH",
        help="ids to make prompts of, for a URL (default: "
        f"{ORDINARY_TOKENS.low}-{ORDINARY_TOKENS.high})",
    )
    group.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)"
    )
    group.add_argument(
        "--send-slo",
        choices=("soft", "hard"),
        help="tell a pdserve router the SLOs with each request; hard: refuse what would miss them",
    )
    add_tls_flags(parser)


def load_targets(arguments: argparse.Namespace, slo: Slo, *, conversing: bool) -> list[Target]:
    """One target, or two with `--compare`. Raises `ConfigError` naming the flag.

    `conversing`: requests are turns of conversations, so that prompts contain answers.
    """
    if not 0 <= arguments.temperature <= 100:
        text = f"temperature is {arguments.temperature}; it must lie in [0, 100]"
        raise ConfigError(text, field="temperature", limit="[0, 100]")
    is_url = arguments.url is not None
    first = arguments.url if is_url else arguments.router or DEFAULT_ROUTER
    key = os.environ.get(API_KEY, "")
    places = [_place(first, "url" if is_url else "router", arguments.model, key)]
    if arguments.compare is not None:
        # Never the first one's key, which is nobody else's business.
        key = os.environ.get(COMPARE_API_KEY, "")
        places.append(_place(arguments.compare, "compare", arguments.compare_model, key))
    return [
        _http(place, arguments, slo, conversing) if place.is_url else _grpc(place, arguments, slo)
        for place in places
    ]


def _place(text: str, flag: str, model: str, key: str) -> _Place:
    is_url = text.startswith(("http://", "https://"))
    if is_url and _has_host(text) and flag != "router":
        return _Place(text, True, model, key)
    if not is_url and is_host_port(text) and flag != "url":
        return _Place(text, False, model, key)
    wanted = {
        "url": "a URL, such as http://127.0.0.1:8000/v1",
        "router": f"host:port, such as {DEFAULT_ROUTER}",
        "compare": "a URL, such as http://127.0.0.1:8000/v1, or host:port of a router",
    }[flag]
    raise ConfigError(f"--{flag} is {text!r}; it must be {wanted}", field=flag, limit=wanted)


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _grpc(place: _Place, arguments: argparse.Namespace, slo: Slo) -> GrpcTarget:
    if arguments.prompts == "text":
        raise ConfigError("--prompts text needs a URL: by gRPC they are ids", field="prompts")
    return GrpcTarget(
        GrpcOptions(
            address=place.text,
            model=place.model,
            temperature=arguments.temperature,
            timeout_s=arguments.timeout_s,
            metadata=bearer(place.key),
            slo=_slo_message(arguments.send_slo, slo),
            tls=router_tls(arguments),
        )
    )


def _http(place: _Place, arguments: argparse.Namespace, slo: Slo, conversing: bool) -> HttpTarget:
    if arguments.api == "chat" and arguments.prompts == "ids":
        raise ConfigError("--prompts ids needs --api completions: chat is text", field="prompts")
    # The text of an answer has no ids that the next turn could begin with.
    text = arguments.prompts == "text" or (arguments.prompts is None and conversing)
    return HttpTarget(
        HttpOptions(
            url=place.text,
            api=arguments.api,
            model=place.model,
            text=text,
            tokens=arguments.token_ids,
            temperature=arguments.temperature,
            headers={**dict(bearer(place.key)), **_slo_headers(arguments.send_slo, slo)},
        )
    )


def _slo_message(send: str | None, slo: Slo) -> types_pb2.Slo | None:
    if send is None:
        return None
    return types_pb2.Slo(
        ttft_ms=slo.ttft_s * 1e3 if math.isfinite(slo.ttft_s) else None,
        tpot_ms=slo.tpot_s * 1e3 if math.isfinite(slo.tpot_s) else None,
        hard=send == "hard",
    )


def _slo_headers(send: str | None, slo: Slo) -> Mapping[str, str]:
    """As `docs/http-api.md` names them; other servers do not look at them."""
    if send is None:
        return {}
    bounds = {"x-pdserve-ttft-ms": slo.ttft_s, "x-pdserve-tpot-ms": slo.tpot_s}
    headers = {name: f"{s * 1e3:g}" for name, s in bounds.items() if math.isfinite(s)}
    return headers | {"x-pdserve-slo-hard": "1" if send == "hard" else "0"}


def _token_range(text: str) -> TokenRange:
    low, dash, high = text.partition("-")
    if dash and low.isdecimal() and high.isdecimal() and int(low) + 2 <= int(high) < 2**31:
        return TokenRange(int(low), int(high))
    raise argparse.ArgumentTypeError(f"{text!r} is not LOW-HIGH, such as 1000-30000")
