"""The key-value header of a GGUF file, read without the tensors.

Source: the GGUF specification, version 2 and 3 (ggml, docs/gguf.md). The `gguf` package's own
reader wraps every string of the vocabulary in numpy views, which takes seconds for a header that
this reads in a fraction of one; a router needs the header and nothing else.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdserve.errors import UnsupportedModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# Value type number -> struct format, little endian.
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


def read_metadata(path: Path) -> dict[str, Any]:
    """Every key of the header: str, int, float, bool, or a list of these.

    Raises `UnsupportedModelError` where `path` is no readable GGUF file.
    """
    with open_gguf(path) as cursor:
        return read_header(cursor).metadata


@contextmanager
def open_gguf(path: Path) -> Iterator["GgufCursor"]:
    """A cursor behind the magic number.

    Damage that is met while reading with it raises `UnsupportedModelError`.
    """
    if path.stat().st_size < len(_MAGIC):
        raise UnsupportedModelError(f"{path} is not a GGUF file: it is too short")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[: len(_MAGIC)] != _MAGIC:
            raise UnsupportedModelError(f"{path} is not a GGUF file: it does not start with GGUF")
        cursor = GgufCursor(data, len(_MAGIC))
        try:
            yield cursor
        except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
            raise UnsupportedModelError(
                f"{path} has a damaged GGUF header near byte {cursor.offset}: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The key-value pairs, and the number of tensors whose descriptions follow them."""

    metadata: dict[str, Any]
    tensor_count: int


def read_header(cursor: "GgufCursor") -> GgufHeader:
    """Reads everything between the magic number and the first tensor description."""
    version = cursor.scalar("I")
    if version not in _VERSIONS:
        raise ValueError(f"version {version}; supported: {_VERSIONS}, little endian")
    tensors, keys = cursor.scalar("Q"), cursor.scalar("Q")
    return GgufHeader(
        {cursor.string(): cursor.value(cursor.scalar("I")) for _ in range(keys)}, tensors
    )


class GgufCursor:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap, offset: int) -> None:
        self.data = data
        self.offset = offset

    def scalar(self, code: str) -> Any:
        """One number or flag, `code` being its letter in `struct`."""
        layout = struct.Struct(f"<{code}")
        (value,) = layout.unpack_from(self.data, self.offset)
        self.offset += layout.size
        return value

    def string(self) -> str:
        """A string: its length, then UTF-8."""
        begin = self.offset + 8
        self.offset = begin + self.scalar("Q")
        if self.offset > len(self.data):
            raise struct.error("a string runs past the end of the file")
        return str(self.data[begin : self.offset], "utf-8")

    def value(self, kind: int) -> Any:
        """A value of the type that the specification numbers `kind`."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        return self.scalar(_SCALARS[kind])

    def _array(self) -> list[Any]:
        kind, length = self.scalar("I"), self.scalar("Q")
        if length > len(self.data):  # every element takes a byte at least
            raise struct.error("an array is longer than the file")
        if kind in _SCALARS:
            layout = struct.Struct(f"<{length}{_SCALARS[kind]}")
            values = list(layout.unpack_from(self.data, self.offset))
            self.offset += layout.size
            return values
        return [self.value(kind) for _ in range(length)]
