from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize

from pdserve.errors import UnsupportedModelError
from pdserve.models.gguf import GgufFile

KINDS = [
    gguf.GGMLQuantizationType[name]
    for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
]


def write(path: Path, **tensors: tuple[np.ndarray, gguf.GGMLQuantizationType]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.name", "tiny")
    for name, (values, kind) in tensors.items():
        raw = values if kind == gguf.GGMLQuantizationType.F32 else quantize(values, kind)
        writer.add_tensor(name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", [(3, 64), (160, 96), (1001, 32)])
def test_tensors_are_what_the_gguf_package_makes_of_them(
    tmp_path: Path, kind: gguf.GGMLQuantizationType, shape: tuple[int, int]
) -> None:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    other = np.ones((2, 32), np.float32)
    path = write(
        tmp_path / "t.gguf", other=(other, gguf.GGMLQuantizationType.Q8_0), wanted=(values, kind)
    )
    file = GgufFile(path)
    assert file.metadata["general.name"] == "tiny"
    assert file.tensors["wanted"].shape == shape
    actual = file.read("wanted")
    np.testing.assert_array_equal(actual, dequantize(quantize(values, kind), kind))
    assert actual.dtype == np.float32
    assert actual.flags.writeable


def test_vectors_keep_their_shape(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.float32)
    file = GgufFile(write(tmp_path / "t.gguf", norm=(values, gguf.GGMLQuantizationType.F32)))
    assert file.tensors["norm"].shape == (48,)
    np.testing.assert_array_equal(file.read("norm"), values)


def test_a_tensor_beyond_the_end_is_named(tmp_path: Path) -> None:
    values = np.ones((64, 64), np.float32)
    path = write(tmp_path / "t.gguf", big=(values, gguf.GGMLQuantizationType.F32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnsupportedModelError, match=r"t\.gguf is cut short: tensor big"):
        GgufFile(path)


@pytest.mark.parametrize(
    ("alignment", "message"), [(0, "general.alignment is 0"), (7, "cut short|damaged")]
)
def test_a_wrong_alignment_is_refused(tmp_path: Path, alignment: int, message: str) -> None:
    path = tmp_path / "t.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("general.alignment", alignment)
    writer.add_tensor("big", np.ones((64, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.write_bytes(path.read_bytes()[:-32])
    with pytest.raises(UnsupportedModelError, match=message):
        GgufFile(path)
