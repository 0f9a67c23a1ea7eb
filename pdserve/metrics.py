"""One process's Prometheus metrics: its own registry and the endpoint that serves it."""

import errno
import threading
from types import TracebackType
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, start_http_server

from pdserve.errors import ConfigError

# From a decode step on a fast device up to a long prefill in a long queue.
SECONDS_BUCKETS: tuple[float, ...] = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0),
)
# From one KV block of a small model up to a long prompt of a large one, in powers of four.
BYTES_BUCKETS: tuple[float, ...] = tuple(float(4**power) for power in range(7, 19))


class MetricsEndpoint:
    """A registry of this process, served at http://host:port/metrics while the endpoint is open.

    `registry` is where the process registers its metrics; `port` is the port that was really bound.
    Used as a context manager, it closes at the end.
    """

    def __init__(self, host: str, port: int) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._server, self._thread = _serve(self.registry, host, port)
        self.port = int(self._server.server_port)
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/metrics"

    def close(self) -> None:
        """Stops serving and waits for the thread; does no harm when called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

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
