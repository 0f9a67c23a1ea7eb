"""How a router is called: what both clients agree on."""

import math
from dataclasses import dataclass

from grpc_health.v1 import health_pb2

from pdserve.api_keys import bearer
from pdserve.errors import ConfigError
from pdserve.rpc.tls import ClientTls

# Of every call but the generation of text.
CALL_TIMEOUT_S = 10.0
# What is asked to know whether the router lives, and whether it can serve; without a key.
HEALTH = health_pb2.HealthCheckRequest(service="pdserve.v1.Inference")
SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a router is, what is shown to it, and how long and how often it is asked.

    `timeout_s` is the deadline of an answer whose request names none, `retries` how often a request
    is sent again. Raises `ConfigError` for values that make no sense.
    """

    address: str
    api_key: str
    tls: ClientTls | None
    timeout_s: float
    retries: int

    def __post_init__(self) -> None:
        check_timeout(self.timeout_s)
        if self.retries < 0:
            text = f"retries is {self.retries}; it must be at least 0"
            raise ConfigError(text, field="retries", limit="at least 0")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of every call."""
        return bearer(self.api_key)


def check_timeout(timeout_s: float) -> None:
    """Raises `ConfigError` for a time that is no deadline."""
    if not 0 < timeout_s < math.inf:
        limit = "(0, inf)"
        text = f"timeout_s is {timeout_s:g}; it must lie in {limit}"
        raise ConfigError(text, field="timeout_s", limit=limit)
