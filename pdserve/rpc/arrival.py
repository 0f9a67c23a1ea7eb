"""When the call came in that the present task answers."""

import time
from contextvars import ContextVar

_arrived: ContextVar[float | None] = ContextVar("arrived", default=None)


def note_arrival() -> None:
    """The present task has begun to answer a call, whose message it has yet to read."""
    _arrived.set(time.monotonic())


def arrived_at() -> float:
    """On the monotonic clock; now, in a task that answers no call."""
    arrived = _arrived.get()
    return time.monotonic() if arrived is None else arrived
