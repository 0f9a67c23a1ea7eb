"""Names of GPUs, and GPUs that are described."""

import pytest

from pdserve.errors import ConfigError
from pdserve.latency.hardware import describe_gpu, find_gpu, known_gpus

CORE = {"name": "cpu-core", "memory_gib": 4, "tflops": 0.05, "memory_gbs": 10, "link_gbs": 5}


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        ("h100", "H100-SXM5-80GB"),
        ("H100-SXM5-80GB", "H100-SXM5-80GB"),
        ("NVIDIA-H100-80GB-HBM3", "H100-SXM5-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM5-80GB"),
        ("h100_sxm", "H100-SXM5-80GB"),
        ("NVIDIA-A100-SXM4-40GB", "A100-SXM4-40GB"),
        ("NVIDIA-A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("a100", "A100-SXM4-80GB"),
        ("NVIDIA-H200", "H200-SXM5-141GB"),
        ("NVIDIA-B200", "B200-SXM6-180GB"),
        ("NVIDIA-L40S", "L40S"),
        ("nvidia-l4", "L4"),
    ],
)
def test_names_aliases_and_product_labels_are_found(name, gpu):
    assert find_gpu(name).name == gpu


@pytest.mark.parametrize("name", ["", "h1000", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "H100-PCIe"])
def test_what_is_not_in_the_catalogue_is_refused_with_what_is(name):
    with pytest.raises(ConfigError, match="H100-SXM5-80GB") as caught:
        find_gpu(name)
    assert caught.value.field == "gpu"


def test_figures_have_the_magnitude_of_gpus():
    """A slip of a power of ten, or of bytes for bits, would leave these ranges."""
    for gpu in known_gpus():
        assert 2e10 < gpu.memory_bytes < 3e11
        assert 100 < gpu.flops / gpu.memory_bytes_per_s < 500
        assert gpu.flops_in("bfloat16") > gpu.flops_in("float32")
        assert 10 * gpu.link_bytes_per_s > gpu.memory_bytes_per_s / 3
        assert gpu.link_bytes_per_s < gpu.memory_bytes_per_s


def test_gpus_without_nvlink_share_a_path():
    h100, l40s = find_gpu("h100"), find_gpu("l40s")
    assert h100.ring_bytes_per_s(8) == h100.link_bytes_per_s
    assert l40s.ring_bytes_per_s(1) == l40s.ring_bytes_per_s(2) == l40s.link_bytes_per_s
    assert l40s.ring_bytes_per_s(8) == l40s.link_bytes_per_s / 4


def test_a_described_gpu_is_in_base_units():
    gpu = describe_gpu(CORE)
    assert gpu.memory_bytes == 4 << 30
    assert gpu.flops_in("float16") == gpu.flops_in("float32") == pytest.approx(5e10)
    assert (gpu.memory_bytes_per_s, gpu.link_bytes_per_s) == (1e10, 5e9)
    assert describe_gpu(CORE | {"tflops_float32": 0.01}).flops_in("float32") == pytest.approx(1e10)
    assert describe_gpu(CORE | {"link_shared": True}).ring_bytes_per_s(4) == 2.5e9


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"memory_gib": -1}, "memory_gib"),
        ({"memory_gib": "four"}, "memory_gib"),
        ({"tflops": None}, "tflops"),
        ({"memory_gbs": float("inf")}, "memory_gbs"),
        ({"link_gbs": True}, "link_gbs"),
        ({"link_shared": 1}, "link_shared"),
        ({"watts": 5}, "watts"),
    ],
)
def test_a_wrong_description_is_refused_by_its_key(change, field):
    with pytest.raises(ConfigError, match=field) as caught:
        describe_gpu(CORE | change)
    assert caught.value.field == field
