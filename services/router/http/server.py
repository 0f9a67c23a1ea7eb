"""The HTTP server: where it listens, its routes, its beginning and end."""

import logging
import socket
import sys

from aiohttp import web
from prometheus_client import CollectorRegistry

from pdserve.api_keys import ApiKeys
from pdserve.config import RouterConfig
from pdserve.rpc.server import check_port_is_free, join_host_port
from pdserve.rpc.tls_identity import TlsIdentity
from services.router.http.authentication import authentication
from services.router.http.errors import answer_errors
from services.router.http.explain import ExplainEndpoint
from services.router.http.generation import WRITE_TIMEOUT_S, GenerationEndpoints
from services.router.http.limits import tell_limits
from services.router.http.models import ModelEndpoints
from services.router.http.monitoring import MonitoringEndpoints
from services.router.model import ServedModel
from services.router.serving import Serving

# Clients keep connections for the next request; longer than proxies do, so that they close first.
_KEEP_ALIVE_S = 75.0
# For answers that are complete to leave, once requests have been drained.
_LAST_WORDS_S = 1.0
_BACKLOG = 1024
# A connection is asked for a sign of life after so long without any.
_KEEP_ALIVE_PROBE_S = 10

# aiohttp logs what it could not parse, which may hold a key. Nobody listens to this logger.
_silent = logging.getLogger(f"{__name__}.aiohttp")
_silent.setLevel(logging.CRITICAL + 1)


class HttpServer:
    """OpenAI's API over HTTP/1.1 on the event loop of the router; with `tls` over HTTPS alone.

    `url` is http(s)://host:port with the port that was really bound. Raises `ConfigError` where it
    is in use.
    """

    def __init__(
        self,
        config: RouterConfig,
        model: ServedModel,
        serving: Serving,
        keys: ApiKeys | None,
        collectors: CollectorRegistry,
        tls: TlsIdentity | None = None,
    ) -> None:
        middlewares = [answer_errors, authentication(keys)]
        app = web.Application(middlewares=middlewares, client_max_size=config.max_body_bytes)
        app.add_routes(_routes(config, model, serving, collectors))
        app.on_response_prepare.append(tell_limits)
        self._runner = web.AppRunner(
            app,
            # A client that goes away ends what it asked for, also while nothing is written to it.
            handler_cancellation=True,
            keepalive_timeout=_KEEP_ALIVE_S,
            shutdown_timeout=_LAST_WORDS_S,
            access_log=None,
            logger=_silent,
        )
        self._socket = _bound_socket(config.host, config.http_port)
        self.port: int = self._socket.getsockname()[1]
        self._tls = tls.http_context() if tls else None
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://{join_host_port(config.host, self.port)}"

    async def start(self) -> None:
        """Accepts connections."""
        await self._runner.setup()
        site = web.SockSite(self._runner, self._socket, ssl_context=self._tls, backlog=_BACKLOG)
        await site.start()

    async def stop(self) -> None:
        """Takes no further connection, lets answers that are complete leave, and cuts the rest."""
        await self._runner.cleanup()
        self._socket.close()


def _routes(
    config: RouterConfig, model: ServedModel, serving: Serving, collectors: CollectorRegistry
) -> list[web.RouteDef]:
    generation = GenerationEndpoints(config, model, serving)
    models = ModelEndpoints(model, serving)
    monitoring = MonitoringEndpoints(serving, collectors)
    return [
        web.post("/v1/completions", generation.completions),
        web.post("/v1/chat/completions", generation.chat),
        web.get("/v1/models", models.list),
        # Ids of the hub have a slash.
        web.get("/v1/models/{id:.+}", models.get),
        web.get("/v1/pdserve/requests/{id:.+}", ExplainEndpoint(serving).get),
        web.get("/health", monitoring.health),
        web.get("/ready", monitoring.ready),
        web.get("/metrics", monitoring.metrics),
    ]


def _bound_socket(host: str, port: int) -> socket.socket:
    check_port_is_free(host, port, option="http_port")
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _notice_lost_hosts(bound)
    bound.bind((host, port))
    return bound


def _notice_lost_hosts(listening: socket.socket) -> None:
    """Ends connections to hosts that vanished without a word; connections inherit it (tcp(7))."""
    if sys.platform == "linux":
        for option, value in (
            (socket.TCP_KEEPIDLE, _KEEP_ALIVE_PROBE_S),
            (socket.TCP_KEEPINTVL, _KEEP_ALIVE_PROBE_S),
            (socket.TCP_USER_TIMEOUT, int(WRITE_TIMEOUT_S * 1000)),
        ):
            listening.setsockopt(socket.IPPROTO_TCP, option, value)
