"""What is known of an instance before anyone has spoken to it."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The phase that an instance serves."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class InstanceAddress:
    """Where an instance of a phase listens: `address` is host:port, `name` is for people."""

    role: Role
    address: str
    name: str
