"""How urgent a request is where requests wait."""

from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """Classes of requests; the numbers are those of the protocol."""

    LOW = 1
    NORMAL = 2
    HIGH = 3


@dataclass(frozen=True, slots=True)
class Urgency:
    """A request's class, and when its next token is due by its SLO; `None`: it has none.

    `due_s` is a time on the clock of the queue that the request waits in.
    """

    priority: Priority = Priority.NORMAL
    due_s: float | None = None


ORDINARY = Urgency()
