"""Typed access to the fields of one JSON object."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pdserve.rpc.http_errors import ParameterError


def wrong_type(name: str, wanted: str) -> ParameterError:
    """The error for a value of another type than `wanted`."""
    return ParameterError(f"{name} must be {wanted}", field=name, code="invalid_type")


class Fields:
    """The fields of an object, each taken by whoever knows it; null is the same as absent.

    `where` is how errors name the object, empty for the whole body. Every method raises
    `ParameterError` for a value of the wrong type or out of its range.
    """

    def __init__(self, document: Mapping[str, Any], where: str = "") -> None:
        self._document = document
        self._prefix = f"{where}." if where else ""
        self._known: set[str] = set()

    def named(self, name: str) -> str:
        """How errors name the field."""
        return f"{self._prefix}{name}"

    def take(self, name: str) -> Any:
        """The value as it is; None where there is none."""
        self._known.add(name)
        return self._document.get(name)

    def required(self, name: str) -> Any:
        """The value as it is; `ParameterError` where there is none."""
        value = self.take(name)
        if value is None:
            text = f"{self.named(name)} is missing"
            raise ParameterError(text, field=self.named(name), code="missing_required_parameter")
        return value

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.take(name)
        return None if value is None else as_text(value, self.named(name))

    def flag(self, name: str) -> bool | None:
        """true or false."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise wrong_type(self.named(name), "true or false")
        return value

    def number(self, name: str) -> float | None:
        """A finite number."""
        value = self.take(name)
        return None if value is None else as_number(value, self.named(name))

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number in [low, high]."""
        value = self.take(name)
        return None if value is None else as_whole(value, self.named(name), low, high)

    def wholes(self, name: str, low: int, high: int) -> list[int]:
        """A list of whole numbers in [low, high]; empty where there is none."""
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise wrong_type(self.named(name), "a list of whole numbers")
        return [as_whole(each, self.named(name), low, high) for each in value]

    def object(self, name: str) -> "Fields | None":
        """An object."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise wrong_type(self.named(name), "an object")
        return Fields(value, self.named(name))

    def ignore(self, names: Iterable[str]) -> None:
        """Fields that may be anything, since they change nothing here."""
        self._known.update(names)

    def refuse(self, names: Mapping[str, tuple[Any, ...]]) -> None:
        """Fields of the API that are not supported, but for the values that ask for nothing."""
        for name, harmless in names.items():
            value = self.take(name)
            if value is None or any(_same(value, each) for each in harmless):
                continue
            raise ParameterError(
                f"{self.named(name)} is not supported",
                field=self.named(name),
                code="unsupported_parameter",
            )

    def done(self) -> None:
        """Raises `ParameterError` for the first field that nobody knows."""
        for name in self._document:
            if name not in self._known:
                raise ParameterError(
                    f"unknown parameter: {self.named(name)}",
                    field=self.named(name),
                    code="unknown_parameter",
                )


def as_text(value: Any, name: str) -> str:
    """A string that Unicode allows; raises `ParameterError`."""
    if not isinstance(value, str):
        raise wrong_type(name, "a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ParameterError(
            f"{name} is not valid Unicode: half a surrogate pair at character {error.start}",
            field=name,
            code="invalid_value",
        ) from error
    return value


def as_number(value: Any, name: str) -> float:
    """A finite number; raises `ParameterError`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(name, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        text = f"{name} is larger than any number of double precision"
        raise ParameterError(text, field=name, code="invalid_value")
    return number


def as_whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number in [low, high]; raises `ParameterError`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(name, "a whole number")
    if not low <= value <= high:
        limit = f"[{low}, {high}]"
        shown = value if abs(value) < 10**30 else "a number of more than 30 digits"
        raise ParameterError(
            f"{name} is {shown}; it must lie in {limit}",
            field=name,
            code="invalid_value",
            limit=limit,
        )
    return value


def _same(value: Any, other: Any) -> bool:
    # True == 1 in Python, but not in JSON.
    return type(value) is type(other) and bool(value == other)
