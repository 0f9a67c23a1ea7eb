"""Specifications as text, such as `gamma:cv=3` or `uniform:10-200`."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from pdserve.errors import ConfigError
from pdserve.workload.arrivals import (
    Arrivals,
    FixedArrivals,
    GammaArrivals,
    OnOffArrivals,
    PoissonArrivals,
)
from pdserve.workload.conversations import Conversations
from pdserve.workload.lengths import FixedLengths, Lengths, LognormalLengths, UniformLengths

ARRIVALS_FORMS = "poisson, fixed, gamma:cv=3, onoff:on=10,off=1,on_s=20,off_s=40"
LENGTHS_FORMS = "512, uniform:10-200, lognormal:mean=755,sigma=1, lognormal:p50=400,p99=4000"
CONVERSATIONS_FORM = "turns=4,think_s=30,system=0,max=32768,block=512"

Spec = TypeVar("Spec")


def parse_arrivals(text: str, field: str = "arrivals") -> Arrivals:
    """An arrival process; `ConfigError` names `field` and the piece that is wrong."""
    return _parsed(_arrivals, text, field)


def parse_lengths(text: str, field: str) -> Lengths:
    """A distribution of lengths; `ConfigError` names `field` and the piece that is wrong."""
    return _parsed(_lengths, text, field)


def parse_conversations(text: str, field: str = "conversations") -> Conversations:
    """Conversations; what is left out has its default.

    `ConfigError` names `field` and the piece that is wrong.
    """
    return _parsed(_conversations, text, field)


def _parsed(parse: Callable[[str], Spec], text: str, field: str) -> Spec:
    try:
        return parse(text.strip())
    except ConfigError as error:
        raise ConfigError(f"{field} {text!r}: {error}", field=field, limit=error.limit) from error


def _arrivals(text: str) -> Arrivals:
    kind, _, rest = text.partition(":")
    match kind:
        case "poisson":
            _numbers(rest)
            return PoissonArrivals()
        case "fixed":
            _numbers(rest)
            return FixedArrivals()
        case "gamma":
            return GammaArrivals(**_numbers(rest, "cv"))
        case "onoff":
            return OnOffArrivals(**_numbers(rest, "on", "off", "on_s", "off_s"))
        case _:
            raise ConfigError(f"no process is called {kind!r}; known forms: {ARRIVALS_FORMS}")


def _lengths(text: str) -> Lengths:
    kind, colon, rest = text.partition(":")
    if not colon and kind.removeprefix("-").isdecimal():
        return FixedLengths(_whole("tokens", kind))
    match kind:
        case "fixed":
            return FixedLengths(_whole("tokens", rest))
        case "uniform":
            low, _, high = rest.partition("-")
            return UniformLengths(_whole("low", low), _whole("high", high))
        case "lognormal" if "p50" in rest or "p99" in rest:
            return LognormalLengths.from_percentiles(**_numbers(rest, "p50", "p99"))
        case "lognormal":
            return LognormalLengths(**_numbers(rest, "mean", "sigma"))
        case _:
            raise ConfigError(f"no distribution is called {kind!r}; known forms: {LENGTHS_FORMS}")


def _conversations(text: str) -> Conversations:
    pieces = _pieces(text, ("turns", "think_s", "system", "max", "block"))
    default = Conversations()
    return Conversations(
        turns=_real("turns", pieces.get("turns", str(default.turns))),
        think_s=_real("think_s", pieces.get("think_s", str(default.think_s))),
        system_tokens=_whole("system", pieces.get("system", str(default.system_tokens))),
        max_tokens=_whole("max", pieces.get("max", str(default.max_tokens))),
        block_tokens=_whole("block", pieces.get("block", str(default.block_tokens))),
    )


def _numbers(text: str, *keys: str) -> dict[str, float]:
    """The values of `keys`, all of which must be there."""
    pieces = _pieces(text, keys)
    for key in keys:
        if key not in pieces:
            raise ConfigError(f"{key} is missing")
    return {key: _real(key, value) for key, value in pieces.items()}


def _pieces(text: str, keys: tuple[str, ...]) -> Mapping[str, str]:
    pieces: dict[str, str] = {}
    for piece in text.split(",") if text else ():
        key, equals, value = (part.strip() for part in piece.partition("="))
        if not equals:
            raise ConfigError(f"{piece!r} must be KEY=VALUE")
        if key not in keys:
            known = ", ".join(keys) or "nothing"
            raise ConfigError(f"{key!r} is not known; it takes {known}", limit=known)
        if key in pieces:
            raise ConfigError(f"{key} is given twice")
        pieces[key] = value
    return pieces


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"{name} is {text!r}; it must be a whole number") from error


def _real(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{name} is {text!r}; it must be a number") from error
