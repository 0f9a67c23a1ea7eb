from pathlib import Path

import pytest
import torch

from pdserve.engine.memory import (
    available_bytes,
    available_host_bytes,
    check_weights_fit,
    kv_blocks,
    resident_weight_bytes,
)
from pdserve.errors import OutOfMemoryError
from pdserve.models.read import read_config
from pdserve.models.source import resolve_model

GIB = 1 << 30
CPU = torch.device("cpu")


def make_host(root: Path, *, own: str, files: dict[str, str]) -> int:
    """Memory that a host with 8 GiB available and these cgroup files grants."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:  8388608 kB\n")
    (root / "proc/self/cgroup").write_text(own)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return available_host_bytes(root / "proc", root / "cgroup")


def test_without_cgroups_what_the_kernel_says(tmp_path: Path) -> None:
    assert make_host(tmp_path, own="0::/\n", files={}) == 8 * GIB


def test_a_cgroup_2_limit_minus_what_cannot_be_reclaimed(tmp_path: Path) -> None:
    files = {
        "memory.max": f"{4 * GIB}\n",
        "memory.current": f"{3 * GIB}\n",
        "memory.stat": f"anon 5\ninactive_file {2 * GIB}\n",
    }
    assert make_host(tmp_path, own="0::/\n", files=files) == 3 * GIB


def test_the_limit_of_a_parent_holds_too(tmp_path: Path) -> None:
    files = {
        "pod/memory.max": f"{2 * GIB}\n",
        "pod/memory.current": f"{GIB}\n",
        "pod/box/memory.max": "max\n",
        "pod/box/memory.current": f"{GIB}\n",
    }
    assert make_host(tmp_path, own="0::/pod/box\n", files=files) == GIB


def test_cgroup_1_seen_from_inside_a_container(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": f"{GIB}\n",
        "memory/memory.usage_in_bytes": "0\n",
    }
    own = "5:cpu:/docker/abc\n4:memory:/docker/abc\n"
    assert make_host(tmp_path, own=own, files=files) == GIB


def test_a_limit_that_is_already_passed_leaves_nothing(tmp_path: Path) -> None:
    files = {"memory.max": "1000\n", "memory.current": "2000\n"}
    assert make_host(tmp_path, own="0::/\n", files=files) == 0


def test_this_machine_has_memory() -> None:
    assert available_bytes(CPU) > 0


def test_blocks_that_fit_the_budget() -> None:
    assert kv_blocks(1000, 16, budget=10_999, free=20_000, tokens=160) == 10


def test_more_than_there_is_says_both_figures_and_the_flag() -> None:
    with pytest.raises(OutOfMemoryError, match=r"4 GiB.*1.5 GiB.*--kv-memory-bytes") as refused:
        kv_blocks(1000, 16, budget=4 * GIB, free=GIB * 3 // 2, tokens=16)
    assert refused.value.field == "kv_memory_bytes"


def test_a_pool_too_small_for_one_sequence_says_what_it_needs() -> None:
    message = r"4096 tokens needs 8 GiB.*has 1 GiB \(20 GiB are free\).*--max-model-len"
    with pytest.raises(OutOfMemoryError, match=message):
        kv_blocks(32 << 20, 16, budget=GIB, free=20 * GIB, tokens=4096)


@pytest.mark.model
def test_weights_that_do_not_fit_are_refused_before_they_are_read() -> None:
    config = read_config(resolve_model("smollm2-135m-instruct"))
    needed = resident_weight_bytes(config, "float32", CPU)
    assert needed == config.weight_bytes("float32") + 4 * 49152 * 576  # the packed head
    check_weights_fit(config, "float32", CPU, needed)
    with pytest.raises(OutOfMemoryError, match=r"0.607 GiB in float32, and cpu has 0.5 GiB free"):
        check_weights_fit(config, "float32", CPU, GIB // 2)
