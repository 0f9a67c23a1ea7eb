"""The prefill process."""

from collections.abc import Callable
from functools import partial

from pdserve.config import InstanceConfig
from pdserve.instance.life import Parts, Role, run_instance
from pdserve.instance.loading import LoadedEngine, load_engine, transfer_config
from pdserve.kv.backend import MakeBackend, make_backend
from pdserve.kv.sender import Sender
from pdserve.rpc.server import RpcServer
from pdserve.rpc.tls_identity import TlsIdentity
from pdserve.rpc.v1 import prefill_pb2_grpc, types_pb2
from services.prefill.servicer import PrefillServicer
from services.prefill.transfers import PrefillTransfers


def run(
    config: InstanceConfig,
    load: Callable[[InstanceConfig], LoadedEngine] = load_engine,
    backend: MakeBackend = make_backend,
) -> int:
    """Runs a prefill instance until it is told to stop; returns the exit status."""
    role = Role(
        name="prefill",
        number=types_pb2.ROLE_PREFILL,
        service_name="pdserve.v1.Prefill",
        open_transfers=partial(_open_transfers, backend),
        add_servicer=_add_servicer,
    )
    return run_instance(config, role, load)


async def _open_transfers(
    make: MakeBackend,
    config: InstanceConfig,
    loaded: LoadedEngine,
    incarnation: str,
    _: TlsIdentity | None,
) -> PrefillTransfers:
    transfer = transfer_config(config)
    backend = make(loaded.pool.device, transfer)
    sender = Sender(incarnation, loaded.layout, 0, loaded.pool, backend, transfer)
    await sender.start()
    return PrefillTransfers(sender, loaded.pool)


def _add_servicer(server: RpcServer, parts: Parts[PrefillTransfers]) -> None:
    server.register(prefill_pb2_grpc.add_PrefillServicer_to_server, PrefillServicer(parts))
