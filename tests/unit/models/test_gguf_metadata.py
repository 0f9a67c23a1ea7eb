from pathlib import Path

import gguf
import pytest

from pdserve.errors import UnsupportedModelError
from pdserve.models.gguf_metadata import read_metadata


@pytest.fixture
def header(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("an.integer", 7)
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.flag", True)
    writer.add_string("a.text", "héllo ▁")
    writer.add_array("some.texts", ["a", "", "ü"])
    writer.add_array("some.numbers", [3, -1, 2])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_every_value_is_read_as_it_was_written(header: Path) -> None:
    assert read_metadata(header) == {
        "general.architecture": "llama",
        "an.integer": 7,
        "a.float": 0.5,
        "a.flag": True,
        "a.text": "héllo ▁",
        "some.texts": ["a", "", "ü"],
        "some.numbers": [3, -1, 2],
    }


def test_a_cut_header_is_refused_wherever_it_is_cut(header: Path) -> None:
    whole = header.read_bytes().rstrip(b"\0")
    for length in range(len(whole) - 8):
        header.write_bytes(whole[:length])
        with pytest.raises(UnsupportedModelError, match=r"tiny\.gguf"):
            read_metadata(header)


@pytest.mark.parametrize(
    "content", [b"", b"GGM", b"\x80\x02}q\x00.", b"GGUF\x09\0\0\0" + bytes(64)]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=r"other\.gguf"):
        read_metadata(path)
