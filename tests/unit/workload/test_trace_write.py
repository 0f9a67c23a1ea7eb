import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from workloads import blocks_of, same_partition, workload, workloads

from pdserve.errors import ConfigError
from pdserve.workload.operations import without_prefix
from pdserve.workload.read import read_trace, read_trace_file
from pdserve.workload.workload import Workload
from pdserve.workload.write import write_trace

SHARED_DIRECTORY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("trace_format", ["csv", "jsonl", "azure", "mooncake", "burstgpt"])
@SHARED_DIRECTORY
@given(made=workloads())
def test_what_is_written_is_read_again(tmp_path: Path, trace_format: str, made: Workload) -> None:
    path = tmp_path / "trace"
    write_trace(made, path, trace_format)
    file = read_trace_file(path)
    assert file.format.name == trace_format
    assert file.workload.arrival_s == pytest.approx(made.arrival_s, abs=1e-9)
    assert np.array_equal(file.workload.prompt_tokens, made.prompt_tokens)
    assert np.array_equal(file.workload.output_tokens, made.output_tokens)
    assert file.workload.prefix is None


@pytest.mark.parametrize("trace_format", ["jsonl", "mooncake"])
@SHARED_DIRECTORY
@given(made=workloads(prefixes=True))
def test_shared_prefixes_survive(tmp_path: Path, trace_format: str, made: Workload) -> None:
    path = tmp_path / "trace"
    write_trace(made, path, trace_format)
    blocks = blocks_of(made.prefix)
    read_back = read_trace(path)
    if any(blocks):
        assert read_back.prefix is not None
        assert read_back.prefix.block_tokens == 512
        assert read_back.prefix.count == len({each for ids in blocks for each in ids})
        assert same_partition(blocks_of(read_back.prefix), blocks)


@pytest.mark.parametrize("trace_format", ["csv", "azure", "burstgpt"])
def test_prefixes_are_not_dropped_silently(tmp_path: Path, trace_format: str) -> None:
    made = workload([0], [600], blocks=[[0, 1]])
    with pytest.raises(
        ConfigError, match=f"made has shared prefixes, which the format {trace_format}"
    ):
        write_trace(made, tmp_path / "trace", trace_format)
    write_trace(without_prefix(made), tmp_path / "trace", trace_format)


def test_mooncake_holds_blocks_of_512_tokens_only(tmp_path: Path) -> None:
    made = workload([0], [600], blocks=[[0, 1]], block_tokens=16)
    with pytest.raises(
        ConfigError, match="blocks of 16 tokens; in the format mooncake they have 512"
    ):
        write_trace(made, tmp_path / "trace", "mooncake")
    write_trace(made, tmp_path / "trace", "jsonl")
    read_back = read_trace(tmp_path / "trace").prefix
    assert read_back is not None
    assert read_back.block_tokens == 16


@pytest.mark.parametrize(
    ("name", "begin"), [("a.csv", "arrival_s,"), ("a.jsonl", '{"arrival_s"'), ("a.csv.gz", "arri")]
)
def test_the_suffix_tells_the_format(tmp_path: Path, name: str, begin: str) -> None:
    write_trace(workload([0, 1]), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    text = gzip.decompress(content) if name.endswith(".gz") else content
    assert text.decode().startswith(begin)


def test_equal_workloads_are_equal_files(tmp_path: Path) -> None:
    for name in ("a.csv.gz", "b.csv.gz"):
        write_trace(workload([0, 1]), tmp_path / name)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_what_others_read_has_their_columns(tmp_path: Path) -> None:
    made = workload([0, 1.5], [3, 4], [5, 6])
    write_trace(made, tmp_path / "azure", "azure")
    write_trace(made, tmp_path / "burstgpt", "burstgpt")
    write_trace(made, tmp_path / "mooncake", "mooncake")
    assert (tmp_path / "azure").read_text().splitlines()[2] == "1970-01-01 00:00:01.5000000,4,6"
    header, first, _ = (tmp_path / "burstgpt").read_text().splitlines()
    assert header == "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    assert first == "0.000000,made,3,5,8,API log"
    second = (tmp_path / "mooncake").read_text().splitlines()[1]
    assert second == '{"timestamp": 1500, "input_length": 4, "output_length": 6}'


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trace.txt", "the suffix tells no format"),
        ("no/such/directory.csv", "No such file or directory"),
    ],
)
def test_where_nothing_can_be_written_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_trace(workload([0]), tmp_path / name)
