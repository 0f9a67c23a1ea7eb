"""A GGUF file: its header and its tensors, dequantized on demand.

The layout is that of the GGUF specification (ggml, docs/gguf.md); the arithmetic of the quantized
formats is the `gguf` package's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType
from gguf.quants import dequantize

from pdserve.errors import UnsupportedModelError
from pdserve.models.gguf_metadata import GgufCursor, open_gguf, read_header

# `dequantize` takes 16 rows at a time. Blocks do not know of rows, so short rows are joined until a
# step is worth its overhead and still fits in the cache: three times as fast here as single rows.
_ROW_BYTES = 16384


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies: `shape` is outermost first, as in torch."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    begin: int
    end: int

    def placed(self, data: int) -> "GgufTensor":
        """The same tensor in a file whose tensor data start at byte `data`."""
        return replace(self, begin=self.begin + data, end=self.end + data)


class GgufFile:
    """An open GGUF file; tensors are read from the page cache when asked for.

    Raises `UnsupportedModelError` where `path` is damaged, cut short, or holds a format that the
    installed `gguf` package does not know.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_gguf(path) as cursor:
            header = read_header(cursor)
            self.metadata = header.metadata
            described = [_read_description(cursor) for _ in range(header.tensor_count)]
            data = _aligned(cursor.offset, self.metadata)
        self._bytes = np.memmap(path, np.uint8, mode="r")
        self.tensors = {tensor.name: tensor.placed(data) for tensor in described}
        for tensor in self.tensors.values():
            if tensor.end > len(self._bytes):
                raise UnsupportedModelError(
                    f"{path} is cut short: tensor {tensor.name} ends at byte {tensor.end}, the "
                    f"file at byte {len(self._bytes)}"
                )

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """The tensor `name` dequantized, a fresh array. Raises `KeyError` where there is none."""
        tensor = self.tensors[name]
        raw = np.asarray(self._bytes[tensor.begin : tensor.end])
        _, block_bytes = GGML_QUANT_SIZES[tensor.kind]
        blocks = raw.size // block_bytes
        rows = raw.reshape(_steps(blocks, block_bytes), -1)
        try:
            values = dequantize(rows, tensor.kind)
        except NotImplementedError as error:
            raise UnsupportedModelError(
                f"{self._path}: tensor {name} has the format {tensor.kind.name}, which the "
                f"installed gguf package cannot read"
            ) from error
        return np.require(values, np.float32, ["W"]).reshape(tensor.shape)


def _read_description(cursor: GgufCursor) -> GgufTensor:
    """One tensor's description; `begin` and `end` still count from the start of the data."""
    name = cursor.string()
    dimensions = [cursor.scalar("Q") for _ in range(cursor.scalar("I"))]
    kind = GGMLQuantizationType(cursor.scalar("I"))
    begin = cursor.scalar("Q")
    block_values, block_bytes = GGML_QUANT_SIZES[kind]
    if not dimensions or min(dimensions) < 1 or dimensions[0] % block_values:
        raise ValueError(f"tensor {name} cannot have the shape {dimensions} in {kind.name}")
    size = prod(dimensions) // block_values * block_bytes
    return GgufTensor(name, tuple(reversed(dimensions)), kind, begin, begin + size)


def _aligned(offset: int, metadata: Mapping[str, Any]) -> int:
    """Where the tensor data start, `offset` being where their descriptions end."""
    alignment = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"general.alignment is {alignment!r}; it must be a positive number")
    return -(-offset // alignment) * alignment


def _steps(blocks: int, block_bytes: int) -> int:
    """Into how many equal rows of whole blocks to cut, each about `_ROW_BYTES` long."""
    rows = blocks
    while rows % 2 == 0 and blocks // rows * block_bytes < _ROW_BYTES:
        rows //= 2
    return rows
