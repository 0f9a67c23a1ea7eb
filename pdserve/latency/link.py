"""How long bytes take over a link between two GPUs or two nodes."""

import math
from dataclasses import dataclass

from pdserve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LinkCost:
    """A link with a latency in seconds and one direction's bandwidth in bytes per second.

    Raises `ConfigError` for a negative latency or a bandwidth that is not above 0.
    """

    latency_s: float
    bytes_per_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise ConfigError(
                f"latency_s of a link is {self.latency_s}; it must be finite and at least 0",
                field="latency_s",
                limit="0",
            )
        if not (math.isfinite(self.bytes_per_s) and self.bytes_per_s > 0):
            raise ConfigError(
                f"bytes_per_s of a link is {self.bytes_per_s}; it must be finite and above 0",
                field="bytes_per_s",
                limit="0",
            )

    def transfer_s(self, size_bytes: float, concurrent: int = 1) -> float:
        """Seconds of a transfer while `concurrent` of them, itself included, share the link evenly.

        Raises `ValueError` where `concurrent` is below 1.
        """
        if concurrent < 1:
            raise ValueError(f"concurrent is {concurrent}; a transfer shares at least with itself")
        return self.latency_s + size_bytes * concurrent / self.bytes_per_s
