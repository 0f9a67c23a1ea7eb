"""A gRPC server with what every pdserve service has: health, reflection, limits, graceful stop."""

import errno
import socket
from collections.abc import Callable, Sequence

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pdserve.errors import ConfigError
from pdserve.rpc.channel import MAX_MESSAGE_BYTES
from pdserve.rpc.late_services import LateServices
from pdserve.rpc.tls_identity import TlsIdentity

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# The name whose health is that the process answers at all: what an orchestrator restarts it by.
LIVENESS = "liveness"

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two processes must not share a port unnoticed.
    ("grpc.so_reuseport", 0),
    # Clients ping idle connections (see pdserve.rpc.channel).
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)


class RpcServer:
    """One listening gRPC server; NOT_SERVING until `set_serving(True)`.

    With `tls` it speaks TLS and nothing else. `address` is host:port with the port that was really
    bound; `serving` is what health says.
    """

    def __init__(
        self, host: str, port: int, services: Sequence[str], tls: TlsIdentity | None = None
    ) -> None:
        self.serving = False
        self._services = ("", *services)
        self._server = aio.server(options=_OPTIONS)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._late = LateServices(services)
        self._server.add_generic_rpc_handlers((self._late,))
        self.port = self._bind(host, port, tls)
        self.address = join_host_port(host, self.port)

    def _bind(self, host: str, port: int, tls: TlsIdentity | None) -> int:
        check_port_is_free(host, port)
        address = join_host_port(host, port)
        try:
            if tls is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, tls.server_credentials())
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {address}: {error}", field="port") from error

    def register(self, add: Callable[..., None], servicer: object) -> None:
        """Registers `servicer` through the generated function `add_…Servicer_to_server`.

        At any time: calls before that are answered UNAVAILABLE.
        """
        add(servicer, self._late)

    async def start(self) -> None:
        """Accepts calls; health says NOT_SERVING, but for `LIVENESS`, which is SERVING."""
        await self.set_serving(False)
        await self._health.set(LIVENESS, SERVING)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """What `grpc.health.v1` answers for every service of this server."""
        self.serving = serving
        for name in self._services:
            await self._health.set(name, SERVING if serving else NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, lets running ones finish for `grace_s`, then ends them."""
        self.serving = False
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


def check_port_is_free(host: str, port: int, *, option: str = "port") -> None:
    """Raises `ConfigError` when `port` is taken; gRPC's own error does not say so.

    `option` is the option that chose it.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                text = f"port {port} on {host} is in use; choose another (0 takes any free one)"
            else:
                text = f"cannot listen on {join_host_port(host, port)}: {error.strerror}"
            raise ConfigError(text, field=option) from error


def join_host_port(host: str, port: int) -> str:
    """host:port, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
