"""The decode process."""

from collections.abc import Callable
from functools import partial

from pdserve.config import InstanceConfig
from pdserve.instance.life import Parts, Role, run_instance
from pdserve.instance.loading import LoadedEngine, load_engine, transfer_config
from pdserve.kv.backend import MakeBackend, make_backend
from pdserve.kv.receiver import Receiver
from pdserve.rpc.channel_cache import ChannelCache
from pdserve.rpc.server import RpcServer
from pdserve.rpc.tls_identity import TlsIdentity
from pdserve.rpc.v1 import decode_pb2_grpc, types_pb2
from services.decode.servicer import DecodeServicer
from services.decode.transfers import DecodeTransfers


def run(
    config: InstanceConfig,
    load: Callable[[InstanceConfig], LoadedEngine] = load_engine,
    backend: MakeBackend = make_backend,
) -> int:
    """Runs a decode instance until it is told to stop; returns the exit status."""
    role = Role(
        name="decode",
        number=types_pb2.ROLE_DECODE,
        service_name="pdserve.v1.Decode",
        open_transfers=partial(_open_transfers, backend),
        add_servicer=_add_servicer,
    )
    return run_instance(config, role, load)


async def _open_transfers(
    make: MakeBackend,
    config: InstanceConfig,
    loaded: LoadedEngine,
    incarnation: str,
    tls: TlsIdentity | None,
) -> DecodeTransfers:
    transfer = transfer_config(config)
    backend = make(loaded.pool.device, transfer)
    receiver = Receiver(incarnation, loaded.layout, 0, loaded.pool, backend, transfer)
    return DecodeTransfers(receiver, ChannelCache(tls))


def _add_servicer(server: RpcServer, parts: Parts[DecodeTransfers]) -> None:
    server.register(decode_pb2_grpc.add_DecodeServicer_to_server, DecodeServicer(parts))
