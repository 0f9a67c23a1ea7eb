"""Writes YAML files that people read, and numbers in their units so that they are read back."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pdserve.errors import ConfigError

_DIGITS = range(1, 18)


def write_yaml(document: Mapping[str, Any], path: Path) -> None:
    """Writes the document, its keys in their order; the same document always gives the same bytes.

    Raises `ConfigError` with the file where it cannot be written.
    """
    text = yaml.safe_dump(
        dict(document),
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=math.inf,
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="output") from error


def tidy(value: float) -> int | float:
    """The same number, without a fraction where it has none."""
    return int(value) if math.isfinite(value) and value == int(value) else value


def in_unit(value: float, guess: float, parse: Callable[[float], float]) -> int | float:
    """The shortest number near `guess` that `parse` turns into `value`; else `guess`.

    Division does not undo a multiplication of floats: the last digit may differ.
    """
    near = [float(f"{guess:.{digits}g}") for digits in _DIGITS]
    near += [math.nextafter(guess, -math.inf), math.nextafter(guess, math.inf)]
    return tidy(next((each for each in near if parse(each) == value), guess))
