"""What one API key may ask of a router: words behind the key in the file of keys."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pdserve.errors import ConfigError
from pdserve.rpc.v1 import types_pb2

# The classes by name, as texts say them.
PRIORITIES = MappingProxyType(
    {
        "low": types_pb2.PRIORITY_LOW,
        "normal": types_pb2.PRIORITY_NORMAL,
        "high": types_pb2.PRIORITY_HIGH,
    }
)
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_COUNT = re.compile(r"[0-9]{1,9}")
_MOST_PER_MINUTE = 10**12
_MOST_CONCURRENT = 2**20
_LEAST_WEIGHT, _MOST_WEIGHT = 0.01, 1000


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits of a key; None is no limit.

    `tokens_per_minute` counts prompts and outputs. `concurrent` is the most requests at once, those
    that wait included. `priority` is the highest class. `weight` is the key's share of the router,
    beside those of the other keys, while more is asked than it can do.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrent: int | None = None
    priority: types_pb2.Priority.ValueType = types_pb2.PRIORITY_HIGH
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: the name of an API key, and what it may. No name: there are no keys."""

    name: str = ""
    limits: KeyLimits = KeyLimits()


def parse_limits(words: Sequence[str]) -> KeyLimits:
    """The limits that `words` like `concurrent=4` set.

    Raises `ConfigError` with the word that is wrong, which never holds a key: it does not tell what
    has no `=`.
    """
    limits: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in _READERS:
            raise _wrong(f"what follows a key must be NAME=VALUE, of {', '.join(_READERS)}", "")
        if name in limits:
            raise _wrong(f"{name} is there twice", name)
        limits[name] = _READERS[name](name, value)
    return KeyLimits(**limits)


def _number(low: float, high: float) -> Callable[[str, str], float]:
    def read(name: str, value: str) -> float:
        if not _NUMBER.fullmatch(value) or not low <= float(value) <= high:
            limit = f"[{low:g}, {high:g}]"
            raise _wrong(f"{name} is {value}; it must be a number in {limit}", name, limit)
        return float(value)

    return read


def _count(name: str, value: str) -> int:
    if not _COUNT.fullmatch(value) or not 1 <= int(value) <= _MOST_CONCURRENT:
        limit = f"[1, {_MOST_CONCURRENT}]"
        raise _wrong(f"{name} is {value}; it must be a whole number in {limit}", name, limit)
    return int(value)


def _priority(name: str, value: str) -> types_pb2.Priority.ValueType:
    if value not in PRIORITIES:
        limit = "|".join(PRIORITIES)
        raise _wrong(f"{name} is {value}; it must be one of {limit}", name, limit)
    return PRIORITIES[value]


def _wrong(text: str, name: str, limit: str = "") -> ConfigError:
    return ConfigError(text, field=name, limit=limit)


_READERS: dict[str, Callable[[str, str], Any]] = {
    "requests_per_minute": _number(1, _MOST_PER_MINUTE),
    "tokens_per_minute": _number(1, _MOST_PER_MINUTE),
    "concurrent": _count,
    "priority": _priority,
    "weight": _number(_LEAST_WEIGHT, _MOST_WEIGHT),
}
