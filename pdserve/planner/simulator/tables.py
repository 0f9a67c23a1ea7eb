"""Tables whose rows are declared as dataclasses; compiled functions read and write them.

A row of a table is a view: what is assigned to its fields is in the table.
"""

from dataclasses import fields
from typing import Any, Protocol, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

Row = TypeVar("Row", covariant=True)

_COLUMN = {float: np.float64, int: np.int64, bool: np.bool_}


class Table(Protocol[Row]):
    """What is used of a table."""

    def __getitem__(self, index: int, /) -> Row:
        """The row `index`, as a view."""
        ...

    def __len__(self) -> int:
        """How many rows there are."""
        ...


def record_type(row: type) -> np.dtype[Any]:
    """The numpy record with the fields of a dataclass: numbers, such dataclasses, whole arrays.

    A field that is an array of whole numbers has its `shape` in its metadata.
    """
    hints = get_type_hints(row)
    columns: list[Any] = []
    for field in fields(row):
        hint = hints[field.name]
        if "shape" in field.metadata:
            columns.append((field.name, np.int64, field.metadata["shape"]))
        else:
            columns.append((field.name, _COLUMN.get(hint) or record_type(hint)))
    return np.dtype(columns, align=True)


def new_table(row: type, length: int) -> NDArray[Any]:
    """A table of `length` rows of zeros."""
    return np.zeros(length, record_type(row))
