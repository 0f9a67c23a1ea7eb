"""Stages of an instance's work at which a test can stop it, so that a fault meets exactly that."""

import threading
from collections.abc import Callable

# A test that has gone away must not keep a process for ever.
_LONGEST_HOLD_S = 30.0


class Holds:
    """Threads that do work pass `reach(stage)`; the next to reach the stage that is held waits.

    Tells `on_held(stage)` when one does. One stage is held at a time, and one thread by it.
    """

    def __init__(self, on_held: Callable[[str], None]) -> None:
        self._on_held = on_held
        self._changed = threading.Condition()
        self._stage = ""
        self._held = False

    def hold(self, stage: str) -> None:
        """The next thread that reaches `stage` waits for `release`."""
        with self._changed:
            self._stage, self._held = stage, False

    def release(self) -> None:
        """Lets go of whoever waits; nothing is held any more."""
        with self._changed:
            self._stage, self._held = "", False
            self._changed.notify_all()

    def reach(self, stage: str) -> None:
        """Returns at once, or after the release where `stage` is held."""
        if stage != self._stage:
            return
        with self._changed:
            if stage != self._stage or self._held:
                return
            self._held = True
            self._on_held(stage)
            self._changed.wait_for(lambda: not self._held, _LONGEST_HOLD_S)
