"""A profile names its device as the planner's cluster does."""

import pytest
import torch

from pdserve.profiling.machine import gpu_name, this_machine


@pytest.mark.parametrize(
    ("driver_name", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-SXM5-80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA Something New", "NVIDIA Something New"),
    ],
)
def test_known_gpus_have_the_name_of_the_catalogue(driver_name: str, name: str) -> None:
    assert gpu_name(driver_name) == name


def test_without_a_gpu_the_processor_is_the_device() -> None:
    machine = this_machine(torch.device("cpu"))
    assert machine.device == machine.cpu != ""
    assert machine.threads == torch.get_num_threads()
