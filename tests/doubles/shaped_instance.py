"""A prefill or decode process without a model, over a link as fast as one says.

Scheduler, blocks, KV pool, transfers over gloo and services are real; the engine is the one of
`context_engine`, whose tokens prove that the KV is where it belongs. As a command:

    python -m tests.doubles.shaped_instance decode --link-bytes-per-s=1e6 --port=…

takes every option of an instance besides its own.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pdserve.cli.local_cluster import ROUTER
from pdserve.cli.tethered import command, die_with
from pdserve.config import InstanceConfig
from pdserve.kv.backend import Backend, make_backend
from pdserve.kv.config import TransferConfig
from pdserve.kv.layout import TRANSFER_PROTOCOL
from pdserve.options import add_options, load
from services.decode import main as decode
from services.prefill import main as prefill
from tests.doubles.context_engine import Pace, load_context_engine
from tests.doubles.controls import ControlServer
from tests.doubles.shaped_link import ShapedBackend


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs from an instance with a model.

    `step_s` and `prompt_token_s` are what a step takes; a token has 32 × `head_dim` bytes of KV;
    `control` is where a test may speak to it (see `controls`), empty for nowhere. `fingerprint` and
    `protocol` are those that its KV layout says: of another model, or another version of pdserve.
    """

    link_bytes_per_s: float = 0.0
    step_s: float = 0.004
    prompt_token_s: float = 0.0001
    blocks: int = 2000
    head_dim: int = 16
    control: str = ""
    fingerprint: str = "context"
    protocol: int = TRANSFER_PROTOCOL

    def flags(self) -> list[str]:
        """The command-line flags that stand for it."""
        return [f"--{_flag(each.name)}={getattr(self, each.name)}" for each in fields(self)]


def run(role: str, config: InstanceConfig, shape: Shape) -> int:
    """Runs the instance until it is told to stop; returns the exit status."""
    # With so little to compute, a second thread costs more than it brings.
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        controls = ControlServer(Path(shape.control or Path(folder, "control")))
        controls.wire.throttle(shape.link_bytes_per_s)

        def shaped_backend(device: torch.device, transfer: TransferConfig) -> Backend:
            backend = make_backend(device, transfer)
            timeout_s = transfer.segment_timeout_s
            return ShapedBackend(backend, controls.wire, controls.holds, timeout_s)

        engine = partial(
            load_context_engine,
            pace=Pace(shape.step_s, shape.prompt_token_s),
            holds=controls.holds,
            blocks=shape.blocks,
            head_dim=shape.head_dim,
            fingerprint=shape.fingerprint,
            protocol=shape.protocol,
        )
        start = prefill.run if role == "prefill" else decode.run
        return start(config, engine, shaped_backend)


def shaped_command(shape: Shape, role: str, *flags: str) -> Sequence[str]:
    """The command line of such an instance, or of a router as any other, for `LocalCluster`."""
    if role == ROUTER:
        return command(role, *flags)
    module = (sys.executable, "-m", "tests.doubles.shaped_instance")
    return (*module, role, f"--parent={os.getpid()}", *shape.flags(), *flags)


def main() -> int:
    """Runs one instance as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("prefill", "decode"))
    parser.add_argument("--parent", type=int, default=0, help="dies with this process")
    for each in fields(Shape):
        parser.add_argument(f"--{_flag(each.name)}", type=type(each.default), default=each.default)
    add_options(parser, InstanceConfig)
    flags = parser.parse_args()
    if flags.parent:
        die_with(flags.parent)
    shape = Shape(**{each.name: getattr(flags, each.name) for each in fields(Shape)})
    return run(flags.role, load(InstanceConfig, flags, os.environ), shape)


def _flag(name: str) -> str:
    return name.replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
