"""One process's Prometheus metrics, and its health: the endpoint that serves them over HTTP."""

import asyncio
import errno
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    make_wsgi_app,
    start_http_server,
)

from pdserve.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# From a decode step on a fast device up to a long prefill in a long queue.
SECONDS_BUCKETS: tuple[float, ...] = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0),
)
# From one KV block of a small model up to a long prompt of a large one, in powers of four.
BYTES_BUCKETS: tuple[float, ...] = tuple(float(4**power) for power in range(7, 19))
# Longer than an event loop is ever busy; a scrape that takes longer fails.
SCRAPE_TIMEOUT_S = 2.0
_HEALTH_PATH = "/health"

T = TypeVar("T")


def read_in_loop(read: Callable[[], T]) -> Callable[[], T]:
    """`read`, to be called in other threads: it reads what only this event loop may touch.

    The call raises `TimeoutError` when the loop does not come to it.
    """
    loop = asyncio.get_running_loop()

    async def value() -> T:
        return read()

    return lambda: asyncio.run_coroutine_threadsafe(value(), loop).result(SCRAPE_TIMEOUT_S)


class MetricsEndpoint:
    """A registry of this process, served at http://host:port/metrics while the endpoint is open.

    `registry` is where the process registers its metrics; `port` is the port that was really bound.
    /health beside it is 200 while `healthy` returns true and 503 otherwise, also where that raises
    `TimeoutError`; it is called in other threads (see `read_in_loop`). Used as a context manager,
    the endpoint closes at the end.
    """

    def __init__(self, host: str, port: int) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.healthy: Callable[[], bool] = lambda: False
        self._server, self._thread = _serve(self.registry, host, port)
        self._server.set_app(self._answer(make_wsgi_app(self.registry)))
        self.port = int(self._server.server_port)
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/metrics"

    def close(self) -> None:
        """Stops serving and waits for the thread; does no harm when called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, metrics: "WSGIApplication") -> "WSGIApplication":
        def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            if environ["PATH_INFO"] != _HEALTH_PATH:
                return metrics(environ, start_response)
            healthy = self._is_healthy()
            status = "200 OK" if healthy else "503 Service Unavailable"
            start_response(status, [("Content-Type", "text/plain")])
            return [b"serving\n" if healthy else b"not serving\n"]

        return answer

    def _is_healthy(self) -> bool:
        try:
            return self.healthy()
        except TimeoutError:
            return False

    def __enter__(self) -> "MetricsEndpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _serve(
    registry: CollectorRegistry, host: str, port: int
) -> tuple[WSGIServer, threading.Thread]:
    try:
        return start_http_server(port, host, registry)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        why = "in use; choose another (0 takes any free one)" if in_use else error.strerror
        text = f"metrics_port {port} on {host}: {why}"
        raise ConfigError(text, field="metrics_port") from error
