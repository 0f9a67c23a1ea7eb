"""The columns of a part of a trace file, and the checks of the values in them."""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdserve.workload.workload import Floats, Ints

MAX_TOKENS = 2**31 - 1


class MalformedLine(ValueError):  # noqa: N818 - it is the line that is malformed
    """What is wrong with a line.

    Whole chunks of lines are checked at once, so the text is right only if there was one line.
    """


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Requests in the order of the file, `[requests]` each; `arrival` in ticks of the format.

    Request `i` begins with the next `block_counts[i]` of the prefix blocks `ids`. `conversation` is
    -1 where a line names none.
    """

    arrival: NDArray[Any]
    prompt: Ints
    output: Ints
    block_counts: Ints
    ids: Ints
    conversation: Ints


def checked_arrivals(arrivals: Floats, name: str) -> Floats:
    """Arrivals that must be finite."""
    if not np.all(np.isfinite(arrivals)):
        raise MalformedLine(f"{name} is {arrivals[0]}; it must be finite")
    return arrivals


def checked_tokens(tokens: Ints, name: str, least: int) -> Ints:
    """Counts of tokens from `least` to `MAX_TOKENS`."""
    if tokens.min() < least or tokens.max() > MAX_TOKENS:
        raise MalformedLine(f"{name} is {tokens[0]}; it must lie in [{least}, {MAX_TOKENS}]")
    return tokens


def whole_numbers(values: Sequence[Any], name: str) -> Ints:
    """Numbers of a JSON document that must be whole and fit 64 bits."""
    array = _array(values)
    if array is None or array.dtype.kind != "i":
        shown = reprlib.repr(values[0])
        raise MalformedLine(f"{name} is {shown}; it must be a whole number below 2^63")
    return array.astype(np.int64, copy=False)


def real_numbers(values: Sequence[Any], name: str) -> Floats:
    """Numbers of a JSON document."""
    array = _array(values)
    if array is None or array.dtype.kind not in "iuf":
        raise MalformedLine(f"{name} is {reprlib.repr(values[0])}; it must be a number")
    return array.astype(np.float64, copy=False)


def _array(values: Sequence[Any]) -> NDArray[Any] | None:
    """The values as an array whose type is theirs; None where they are lists or alike."""
    try:
        array = np.array(values)
    except (ValueError, OverflowError):  # lists of different lengths
        return None
    return array if array.ndim == 1 else None
