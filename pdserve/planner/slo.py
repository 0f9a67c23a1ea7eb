"""What is asked of a deployment."""

import math
from dataclasses import dataclass

from pdserve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Slo:
    """Bounds of one request in seconds, and the share of requests that is to meet both."""

    ttft_s: float = math.inf
    tpot_s: float = math.inf
    attainment: float = 0.9

    def __post_init__(self) -> None:
        for name, value in (("ttft", self.ttft_s), ("tpot", self.tpot_s)):
            if not value > 0:
                raise ConfigError(
                    f"{name} is {value * 1e3:g} ms; it must be above 0",
                    field=f"{name}_ms",
                    limit="> 0",
                )
        if not 0 < self.attainment <= 1:
            raise ConfigError(
                f"attainment is {self.attainment:g}; it must lie in (0, 1]",
                field="attainment",
                limit="(0, 1]",
            )

    def scaled(self, factor: float) -> "Slo":
        """Both bounds times `factor`: the SLO scale of DistServe (OSDI 2024, section 6.2)."""
        return Slo(self.ttft_s * factor, self.tpot_s * factor, self.attainment)
