"""The page on latency states the figures that the code has."""

import re
from dataclasses import fields
from pathlib import Path

from pdserve.latency.factors import RooflineFactors
from pdserve.latency.hardware import find_gpu, known_gpus
from pdserve.latency.profile import built_in_profiles

PAGE = (Path(__file__).parents[3] / "docs" / "latency.md").read_text("utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    """The cells after the first, by what the first holds as code, of a section's tables."""
    section = re.split(r"\n#+ ", PAGE.partition(f" {heading}\n")[2])[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {first.strip(" `"): [cell.strip(" `") for cell in rest] for first, *rest in lines}


def test_every_factor_is_listed_with_its_default():
    assert {name: float(cells[0]) for name, cells in rows("Factors").items()} == {
        field.name: field.default for field in fields(RooflineFactors)
    }


def test_every_gpu_is_listed_with_its_figures():
    listed = rows("Hardware")
    for gpu in known_gpus():
        short, memory, flops, float32, bandwidth, link = listed[gpu.name]
        assert find_gpu(short) == gpu
        assert int(memory) << 20 == gpu.memory_bytes
        assert float(flops) * 1e12 == gpu.flops
        assert float(float32) * 1e12 == gpu.flops_float32
        assert float(bandwidth) * 1e9 == gpu.memory_bytes_per_s
        assert float(link.removesuffix(", shared")) * 1e9 == gpu.link_bytes_per_s
        assert link.endswith("shared") == gpu.link_shared


def test_every_built_in_profile_is_named():
    assert all(f"`{name}`" in PAGE for name in built_in_profiles())
