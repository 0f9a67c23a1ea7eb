"""What a client says of a request in headers: its id, its urgency, its deadline, its curiosity."""

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from pdserve.errors import InvalidRequestError
from pdserve.key_limits import PRIORITIES
from pdserve.rpc.v1 import types_pb2

REQUEST_ID = "x-request-id"
TTFT_MS = "x-pdserve-ttft-ms"
TPOT_MS = "x-pdserve-tpot-ms"
SLO_HARD = "x-pdserve-slo-hard"
PRIORITY = "x-pdserve-priority"
TIMEOUT_S = "x-pdserve-timeout-s"
EXPLAIN = "x-pdserve-explain"

# Short enough that the number of a choice fits behind it.
_MAX_ID_CHARS = 120
_ID = re.compile(rf"[!-~]{{1,{_MAX_ID_CHARS}}}")


@dataclass(frozen=True, slots=True)
class Terms:
    """How a client wants its request served. `timeout_s` None: as long as the router allows."""

    slo: types_pb2.Slo
    priority: types_pb2.Priority.ValueType
    timeout_s: float | None
    explain: bool


def request_id_of(headers: Mapping[str, str]) -> str:
    """The client's request id, or a new one. Raises `InvalidRequestError`."""
    request_id = headers.get(REQUEST_ID) or secrets.token_hex(8)
    if not _ID.fullmatch(request_id):
        limit = f"1 to {_MAX_ID_CHARS} printable ASCII characters without blanks"
        raise InvalidRequestError(f"{REQUEST_ID} must be {limit}", field=REQUEST_ID, limit=limit)
    return request_id


def terms_of(headers: Mapping[str, str]) -> Terms:
    """The terms in `headers`. Raises `InvalidRequestError` naming the header that is wrong."""
    slo = types_pb2.Slo(
        ttft_ms=_positive(headers, TTFT_MS),
        tpot_ms=_positive(headers, TPOT_MS),
        hard=_switch(headers, SLO_HARD),
    )
    return Terms(
        slo,
        _priority(headers),
        _positive(headers, TIMEOUT_S),
        explain=_switch(headers, EXPLAIN) or False,
    )


def _positive(headers: Mapping[str, str], name: str) -> float | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e12:
        raise InvalidRequestError(
            f"{name} is {text!r}; it must be a number in (0, 1e12)", field=name, limit="(0, 1e12)"
        )
    return value


def _priority(headers: Mapping[str, str]) -> types_pb2.Priority.ValueType:
    text = headers.get(PRIORITY)
    if text is None:
        return types_pb2.PRIORITY_UNSPECIFIED
    if text not in PRIORITIES:
        limit = ", ".join(PRIORITIES)
        raise InvalidRequestError(
            f"{PRIORITY} is {text!r}; it must be one of {limit}", field=PRIORITY, limit=limit
        )
    return PRIORITIES[text]


def _switch(headers: Mapping[str, str], name: str) -> bool | None:
    text = headers.get(name)
    if text is None:
        return None
    if text not in ("0", "1"):
        raise InvalidRequestError(f"{name} is {text!r}; it must be 0 or 1", field=name, limit="0|1")
    return text == "1"
