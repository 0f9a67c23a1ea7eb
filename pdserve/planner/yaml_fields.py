"""The fields of a YAML document, checked as they are read: errors name the file and the key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pdserve.errors import ConfigError
from pdserve.yaml_file import read_yaml

Choice = TypeVar("Choice", bound=str)

# Beyond any rate, time or count that these files hold, and far from where floats overflow.
_MOST = 1e15
_MOST_WHOLE = 1 << 40
# Characters of a value that an error shows.
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping in a YAML file. `where` is its place, such as `nodes[2]`; empty for the whole file.

    Each method returns the value of a key, or `default` where one is given and the key is absent.
    They raise `ConfigError` with the file, the key, its value and what it must be.
    """

    path: Path
    where: str
    values: Mapping[str, Any]

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self.values

    def text(self, key: str, default: str | None = None) -> str:
        """A text that is not empty."""
        value = self._value(key, default)
        if key in self.values and (not isinstance(value, str) or not value.strip()):
            hint = ": quote it" if isinstance(value, int | float) else ""
            raise self.wrong(key, f"is {_shown(value)}; it must be a text that is not empty{hint}")
        return str(value)

    def choice(self, key: str, choices: Sequence[Choice]) -> Choice:
        """One of these texts."""
        value = self._value(key)
        for each in choices:
            if value == each:
                return each
        known = ", ".join(choices)
        raise self.wrong(key, f"is {_shown(value)}; it must be one of {known}", limit=known)

    def truth(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"is {_shown(value)}; it must be true or false")
        return value

    def whole(
        self, key: str, low: int = 0, high: int = _MOST_WHOLE, default: int | None = None
    ) -> int:
        """A whole number from `low` to `high`."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            limit = f"[{low}, {high}]"
            raise self.wrong(
                key, f"is {_shown(value)}; it must be a whole number in {limit}", limit
            )
        return value

    def number(
        self, key: str, low: float = 0.0, high: float = _MOST, default: float | None = None
    ) -> float:
        """A number from `low` to `high`, never NaN."""
        value = self._value(key, default)
        if not _is_number(value) or not low <= value <= high:
            limit = f"[{low:g}, {high:g}]"
            raise self.wrong(key, f"is {_shown(value)}; it must be a number in {limit}", limit)
        return float(value)

    def positive(self, key: str, high: float = _MOST, default: float | None = None) -> float:
        """A number above 0 and up to `high`, never NaN."""
        value = self._value(key, default)
        if not _is_number(value) or not 0 < value <= high:
            limit = f"(0, {high:g}]"
            raise self.wrong(key, f"is {_shown(value)}; it must be a number in {limit}", limit)
        return float(value)

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers from 0 on."""
        value = self._value(key)
        if isinstance(value, list) and all(type(each) is int and each >= 0 for each in value):
            return tuple(value)
        raise self.wrong(key, f"is {_shown(value)}; it must be a list of whole numbers from 0 on")

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of so many finite numbers from 0 on."""
        value = self._value(key)
        fits = isinstance(value, list) and len(value) == count
        if fits and all(_is_number(each) and 0 <= each <= _MOST for each in value):
            return tuple(float(each) for each in value)
        raise self.wrong(key, f"is {_shown(value)}; it must be a list of {count} numbers from 0 on")

    def mapping(self, key: str, known: Sequence[str] | None = None) -> "Fields":
        """A mapping with no keys but the `known` ones, or with any texts as keys."""
        return as_fields(self.path, self.place(key), self._value(key), known)

    def mappings(self, key: str, known: Sequence[str]) -> "list[Fields]":
        """A list of at least one mapping with no keys but the `known` ones."""
        value = self._value(key)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, "must be a list of at least one mapping")
        return [
            as_fields(self.path, f"{self.place(key)}[{index}]", entry, known)
            for index, entry in enumerate(value)
        ]

    def place(self, key: str) -> str:
        """The key with the way to it, such as `nodes[2].gpu`."""
        return f"{self.where}.{key}" if self.where else key

    def wrong(self, key: str, why: str, limit: str = "") -> ConfigError:
        """The error that says what is wrong with a key."""
        place = self.place(key)
        return ConfigError(f"{self.path}: {place}: {why}", field=place, limit=limit)

    def _value(self, key: str, default: Any = None) -> Any:
        if key in self.values:
            return self.values[key]
        if default is None:
            raise self.wrong(key, "is missing")
        return default


def read_fields(path: Path, option: str, version: int, known: Sequence[str]) -> Fields:
    """The document in `path`, a mapping with these keys whose `version` is this one.

    `option` is the flag that names the file. Raises `ConfigError` with what is wrong.
    """
    document = read_yaml(path, option)
    # What another version holds is not known here, so its keys are no errors.
    if isinstance(document, dict) and document.get("version", version) != version:
        found = document["version"]
        raise ConfigError(
            f"{path}: version: is {found!r}; this pdserve reads version {version}",
            field="version",
            limit=str(version),
        )
    fields = as_fields(path, "", document, known)
    fields.whole("version", version, version)
    return fields


def as_fields(path: Path, where: str, value: Any, known: Sequence[str] | None) -> Fields:
    """`value` as a mapping whose keys are texts, and `known` ones unless that is None."""
    place = f"{path}: {where}: " if where else f"{path}: "
    if not isinstance(value, dict):
        keys = f" with the keys {', '.join(known)}" if known else ""
        raise ConfigError(f"{place}is {_shown(value)}; it must be a mapping{keys}", field=where)
    for key in value:
        name = f"{where}.{key}" if where else str(key)
        if not isinstance(key, str) or not key.strip():
            why = "a key must be a text that is not empty: quote it"
            raise ConfigError(f"{path}: {name}: {why}", field=name)
        if known is not None and key not in known:
            keys = ", ".join(known)
            why = f"is not a key here; keys are {keys}"
            raise ConfigError(f"{path}: {name}: {why}", field=name, limit=keys)
    return Fields(path, where, value)


def _shown(value: Any) -> str:
    """The value for an error, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
