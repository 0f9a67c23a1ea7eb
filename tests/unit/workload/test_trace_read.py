import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from workloads import blocks_of

from pdserve.errors import ConfigError
from pdserve.workload import read
from pdserve.workload.formats import FORMATS
from pdserve.workload.read import read_trace, read_trace_file
from pdserve.workload.write import write_trace

CSV = "arrival_s,prompt_tokens,output_tokens\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def saved(directory: Path, text: str, name: str = "trace") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def mooncake(**changes: object) -> str:
    line = {"timestamp": 0, "input_length": 1000, "output_length": 5, "hash_ids": [0, 1]}
    return json.dumps(line | changes) + "\n"


def test_our_csv(tmp_path: Path) -> None:
    file = read_trace_file(saved(tmp_path, f"{CSV}0.5,377,57\n1.25,1189,415\n", "my.csv"))
    assert (file.format.name, file.failed, file.workload.name) == ("csv", 0, "my")
    assert file.workload.arrival_s.tolist() == [0, 0.75]
    assert file.workload.prompt_tokens.tolist() == [377, 1189]
    assert file.workload.output_tokens.tolist() == [57, 415]
    assert file.workload.prefix is None


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    text = 'Output_Tokens,user, arrival_s ,prompt_tokens\n57,"a, b",0.5,377\n'
    read_back = read_trace(saved(tmp_path, text))
    assert (read_back.prompt_tokens[0], read_back.output_tokens[0]) == (377, 57)


def test_our_jsonl_with_prefixes_on_some_lines(tmp_path: Path) -> None:
    text = (
        '{"arrival_s": 1, "prompt_tokens": 40, "output_tokens": 2}\n'
        '{"arrival_s": 2.5, "prompt_tokens": 40, "output_tokens": 3,'
        ' "prefix_ids": [900, 7], "block_tokens": 16}\n'
        '{"arrival_s": 3, "prompt_tokens": 16, "output_tokens": 4,'
        ' "prefix_ids": [900], "block_tokens": 16}\n'
    )
    file = read_trace_file(saved(tmp_path, text))
    assert file.format.name == "jsonl"
    assert file.workload.arrival_s.tolist() == [0, 1.5, 2]
    assert file.workload.prefix is not None
    assert file.workload.prefix.block_tokens == 16
    assert blocks_of(file.workload.prefix) == [[], [1, 0], [1]]


def test_azure_times_are_exact_to_100_ns(tmp_path: Path) -> None:
    text = (
        f"{AZURE}2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:46.6805901,396,109\n2023-11-17 18:15:46.6805900,1,1"
    )
    file = read_trace_file(saved(tmp_path, text))
    assert file.format.name == "azure"
    assert file.workload.arrival_s.tolist() == [0, 1e-7, 86400]


def test_azure_times_of_2024_name_their_zone_and_may_lack_a_fraction(tmp_path: Path) -> None:
    text = f"{AZURE}2024-05-12 00:00:00+00:00,3,4\n2024-05-12T00:00:01.5Z,3,4\n"
    assert read_trace(saved(tmp_path, text)).arrival_s.tolist() == [0, 1.5]


def test_mooncake(tmp_path: Path) -> None:
    text = mooncake(timestamp=27000, hash_ids=[46, 47]) + mooncake(
        timestamp=30001, hash_ids=[46, 2000000000000]
    )
    file = read_trace_file(saved(tmp_path, text, "conversation_trace.jsonl"))
    assert (file.format.name, file.workload.name) == ("mooncake", "conversation_trace")
    assert file.workload.arrival_s.tolist() == [0, 3.001]
    assert file.workload.prefix is not None
    assert file.workload.prefix.block_tokens == 512
    assert (blocks_of(file.workload.prefix), file.workload.prefix.count) == ([[0, 1], [0, 2]], 3)


def test_burstgpt_requests_without_a_response_are_left_out_and_counted(tmp_path: Path) -> None:
    text = (
        f"{BURSTGPT}5,ChatGPT,472,18,490,Conversation log\n"
        "45,ChatGPT,1087,0,1087,Conversation log\n118.5,GPT-4,417,276,693,API log\n"
    )
    file = read_trace_file(saved(tmp_path, text))
    assert (file.format.name, file.failed) == ("burstgpt", 1)
    assert file.workload.arrival_s.tolist() == [0, 113.5]
    assert file.workload.prompt_tokens.tolist() == [472, 417]


def test_the_routers_log_is_a_trace(tmp_path: Path) -> None:
    lines = [
        {"time": "2026-11-25T20:00:00", "level": "info", "event": "started", "logger": "router"},
        request_line("a", arrived_at=1764100002.25, prompt_tokens=30, output_tokens=7),
        request_line("b", arrived_at=1764100000.5, prompt_tokens=20, output_tokens=5),
        {"level": "warning", "event": "attempt failed", "logger": "router", "request_id": "c"},
    ]
    path = tmp_path / "router.log"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\nready role=router\n")
    file = read_trace_file(path)
    assert file.format.name == "router"
    assert file.workload.arrival_s.tolist() == [0, 1.75]
    assert file.workload.prompt_tokens.tolist() == [20, 30]
    assert file.workload.output_tokens.tolist() == [5, 7]
    with pytest.raises(ConfigError, match="router can be read only"):
        write_trace(file.workload, tmp_path / "out.jsonl", "router")


def test_a_broken_line_of_the_routers_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "router.log"
    good = request_line("a", arrived_at=1.0, prompt_tokens=3, output_tokens=2)
    bad = request_line("b", arrived_at=1.0, prompt_tokens="many", output_tokens=2)
    path.write_text("\n".join(json.dumps(line) for line in (good, {"event": "x"}, bad)))
    with pytest.raises(ConfigError, match="line 3: prompt_tokens"):
        read_trace(path)


def request_line(request_id: str, **figures: object) -> dict[str, object]:
    return {
        "event": "request finished",
        "logger": "services.router.serving",
        "request_id": request_id,
        **figures,
    }


def test_burstgpt_with_sessions(tmp_path: Path) -> None:
    text = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,"
        "Log Type\n19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log\n"
    )
    assert read_trace(saved(tmp_path, text)).output_tokens.tolist() == [446]


def test_failed_requests_take_their_blocks_with_them(tmp_path: Path) -> None:
    text = mooncake(output_length=0, hash_ids=[8, 9]) + mooncake(hash_ids=[9, 3])
    file = read_trace_file(saved(tmp_path, text))
    assert file.failed == 1
    assert blocks_of(file.workload.prefix) == [[1, 0]]


def test_arrivals_are_sorted_and_equal_ones_keep_their_order(tmp_path: Path) -> None:
    text = "".join(
        mooncake(timestamp=time, output_length=output, hash_ids=[output])
        for time, output in ((2000, 1), (1000, 2), (2000, 3), (1000, 4))
    )
    sorted_trace = read_trace(saved(tmp_path, text))
    assert sorted_trace.arrival_s.tolist() == [0, 0, 1, 1]
    assert sorted_trace.output_tokens.tolist() == [2, 4, 1, 3]
    assert blocks_of(sorted_trace.prefix) == [[1], [3], [0], [2]]


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    text = f"\ufeff{CSV}\n0,1,2\n \n3,4,5\n\n".replace("\n", "\r\n")
    assert read_trace(saved(tmp_path, text)).prompt_tokens.tolist() == [1, 4]


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(gzip.compress(f"{CSV}0,1,2\n".encode()))
    assert read_trace(path).output_tokens.tolist() == [2]


def test_chunks_make_one_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "_CHUNK_LINES", 7)
    lines = "".join(mooncake(timestamp=i, output_length=i + 1, hash_ids=[i % 3]) for i in range(50))
    trace = read_trace(saved(tmp_path, lines))
    assert trace.output_tokens.tolist() == list(range(1, 51))
    assert blocks_of(trace.prefix) == [[i % 3] for i in range(50)]


def test_the_format_may_be_named(tmp_path: Path) -> None:
    path = saved(tmp_path, f"{CSV}0,1,2\n")
    assert len(read_trace(path, "csv")) == 1
    with pytest.raises(ConfigError, match=r"line 1: the header has no column 'TIMESTAMP'"):
        read_trace(path, "azure")
    with pytest.raises(ConfigError, match="trace format is 'parquet'; it must be one of csv"):
        read_trace(path, "parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        (CSV, "it has no requests"),
        ("a,b,c\n1,2,3\n", "the first line is of no known trace format: 'a,b,c'"),
        ("[1, 2]\n", "of no known trace format"),
        ('{"a": 1}\n', "of no known trace format"),
        ("x" * 200_000, "of no known trace format"),
        (f"{CSV}0,1\n", "line 2: it has 2 values; the header has 3"),
        (f"{CSV}0,1,2\n\n0,1,2,3\n", "line 4: it has 4 values"),
        (f"{CSV}x,1,2\n", "line 2: arrival_s is 'x'; it must be a number"),
        (f"{CSV}nan,1,2\n", "line 2: arrival_s is nan; it must be finite"),
        (f"{CSV}0,1.5,2\n", "line 2: prompt_tokens is '1.5'; it must be a whole number"),
        (f"{CSV}0,1,\n", "line 2: output_tokens is ''"),
        (f"{CSV}0,1,0\n", "line 2: output_tokens is 0; it must lie in"),
        (f"{CSV}0,-1,2\n", "line 2: prompt_tokens is -1; it must lie in"),
        (f"{CSV}0,3000000000,2\n", "line 2: prompt_tokens is 3000000000; it must lie in"),
        (f"{CSV}0,{10**30},2\n", "it must be a whole number below 2\\^63"),
        (f'{CSV}0,1,2\n"0,1,2\n0,1,2\n', "line 3: not valid CSV"),
        (f"{AZURE}now,1,2\n", "line 2: TIMESTAMP is 'now'; it must be a date and time in UTC"),
        (f"{AZURE}2023-11-16,1,2\n", "line 2: TIMESTAMP is"),
        (f"{AZURE}2023-13-16 10:00:00,1,2\n", "line 2: TIMESTAMP is"),
        (f"{AZURE}2023-11-16 10:00:00+02:00,1,2\n", "line 2: TIMESTAMP is"),
        (f"{BURSTGPT}1,GPT-4,5,0,5,API log\n", "all 1 requests failed"),
        (mooncake() + "{\n", "line 2: not valid JSON"),
        (mooncake() + "7\n", "line 2: it must be one JSON object"),
        (mooncake() + "{}\n", "line 2: it has no 'input_length'"),
        (mooncake() + f"{mooncake().strip()},{mooncake()}", "line 2: it must be one JSON object"),
        (mooncake(timestamp="0"), "line 1: timestamp is '0'; it must be a number"),
        (mooncake(timestamp=float("inf")), "line 1: timestamp is inf; it must be finite"),
        (mooncake(input_length=1.5), "line 1: input_length is 1.5; it must be a whole number"),
        (mooncake(input_length=None), "line 1: input_length is None"),
        (mooncake(input_length=[1]), "line 1: input_length is \\[1\\]"),
        (mooncake(input_length=2**70), "line 1: input_length is"),
        (mooncake(output_length=-1), "line 1: output_length is -1; it must lie in"),
        (mooncake(hash_ids=7), "line 1: hash_ids must be a list"),
        (mooncake(hash_ids=["a"]), "line 1: one of hash_ids is 'a'"),
        (mooncake(hash_ids=[[1], [2, 3]]), "line 1: one of hash_ids is \\[1\\]"),
        (
            mooncake(hash_ids=[1, 2, 3]),
            "line 1: hash_ids has 3 blocks of 512 tokens; a prompt of 1000 tokens has at most 2",
        ),
    ],
)
def test_what_is_malformed_is_named_by_file_and_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = saved(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as raised:
        read_trace(path)
    assert str(raised.value).startswith(f"{path}")
    assert raised.value.field == "trace"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((16, 32), "line 2: block_tokens is 32; an earlier line has 16"),
        ((16, 0), "line 2: block_tokens is 0; it must lie in"),
        ((16, None), "line 2: it has no 'block_tokens'"),
    ],
)
def test_a_trace_has_blocks_of_one_size(
    tmp_path: Path, sizes: tuple[int | None, ...], message: str
) -> None:
    lines = []
    for size in sizes:
        line = {"arrival_s": 0, "prompt_tokens": 99, "output_tokens": 1, "prefix_ids": [0]}
        lines.append(json.dumps(line if size is None else line | {"block_tokens": size}))
    with pytest.raises(ConfigError, match=message):
        read_trace(saved(tmp_path, "\n".join(lines)))


def test_a_bad_line_far_into_a_file_is_named(tmp_path: Path) -> None:
    lines = ["0,1,2"] * 20_000
    lines[17_000] = "0,1,zero"
    with pytest.raises(ConfigError, match="line 17002: output_tokens is 'zero'"):
        read_trace(saved(tmp_path, CSV + "\n".join(lines)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not a text file"),
        (gzip.compress(CSV.encode() * 1000, mtime=0)[:30], "not a whole gzip file"),
        (b"\x1f\x8bnonsense", "not a whole gzip file"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_trace(path)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none: No such file"):
        read_trace(tmp_path / "none")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_trace(tmp_path)


def test_columns_have_the_types_of_a_workload(tmp_path: Path) -> None:
    trace = read_trace(saved(tmp_path, mooncake()))
    assert trace.prefix is not None
    assert trace.arrival_s.dtype == np.float64
    columns = (trace.prompt_tokens, trace.output_tokens, trace.prefix.ids, trace.prefix.offsets)
    assert {column.dtype for column in columns} == {np.dtype(np.int64)}


def test_the_lines_that_the_documentation_shows_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "workloads.md").read_text("utf-8")
    lines = page.partition("One request in each:\n\n```\n")[2].partition("\n```")[0].splitlines()
    headers = {"csv": CSV, "azure": AZURE, "burstgpt": BURSTGPT}
    assert len(lines) == len(FORMATS)
    for name, line in zip(FORMATS, lines, strict=True):
        file = read_trace_file(saved(tmp_path, headers.get(name, "") + line))
        assert (file.format.name, len(file.workload), file.failed) == (name, 1, 0)
