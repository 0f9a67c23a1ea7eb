"""How a router is called: what both clients agree on."""

import math

from grpc_health.v1 import health_pb2

from pdserve.api_keys import bearer
from pdserve.client.failures import cut_off
from pdserve.errors import ConfigError
from pdserve.rpc.tls import ClientTls

# Of every call but the generation of text.
CALL_TIMEOUT_S = 10.0
# What is asked to know whether the router lives, and whether it can serve; without a key.
HEALTH = health_pb2.HealthCheckRequest(service="pdserve.v1.Inference")
SERVING = health_pb2.HealthCheckResponse.SERVING


class Connection:
    """Where a router is, what is shown to it, and how long and how often it is asked.

    `timeout_s` is the deadline of an answer whose request names none, `retries` how often a request
    is sent again. `metadata` goes with every call. Raises `ConfigError` for values that make no
    sense.
    """

    def __init__(
        self, address: str, api_key: str, tls: ClientTls | None, timeout_s: float, retries: int
    ) -> None:
        check_timeout(timeout_s)
        if retries < 0:
            text = f"retries is {retries}; it must be at least 0"
            raise ConfigError(text, field="retries", limit="at least 0")
        self.address = address
        self.tls = tls
        self.timeout_s = timeout_s
        self.retries = retries
        self.metadata = bearer(api_key)
        self._open = True

    def close(self) -> None:
        """No call may begin any more."""
        self._open = False

    def check_open(self) -> None:
        """Raises `UnavailableError` once it is closed."""
        if not self._open:
            raise cut_off(self.address)


def check_timeout(timeout_s: float) -> None:
    """Raises `ConfigError` for a time that is no deadline."""
    if not 0 < timeout_s < math.inf:
        limit = "(0, inf)"
        text = f"timeout_s is {timeout_s:g}; it must lie in {limit}"
        raise ConfigError(text, field="timeout_s", limit=limit)
