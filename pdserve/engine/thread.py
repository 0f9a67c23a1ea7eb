"""The thread that an engine lives on."""

import queue
import threading
import time
from collections.abc import Callable

from pdserve.engine.engine import Engine, EngineLoad
from pdserve.engine.events import Event

Command = Callable[[Engine], list[Event] | None]


class EngineThread:
    """Steps an engine while it has work and runs commands between steps.

    `deliver` gets the events of each step and `failed` the exception that ended the thread; both
    are called on it. Commands are few: every one belongs to a request that was admitted to a
    bounded queue, so that theirs needs no bound of its own.
    """

    def __init__(
        self,
        engine: Engine,
        deliver: Callable[[list[Event]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._engine = engine
        self._deliver = deliver
        self._failed = failed
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._step_began = 0.0
        self._load = engine.load()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts stepping."""
        self._thread.start()

    def submit(self, command: Command) -> None:
        """Runs `command` on the engine's thread before its next step."""
        self._commands.put(command)

    def load(self) -> EngineLoad:
        """The engine as it was after its latest step or command."""
        return self._load

    def step_age(self) -> float:
        """Seconds since the step in progress began; 0 between steps."""
        began = self._step_began
        return time.monotonic() - began if began else 0.0

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after the step in progress; False when it did not end in time."""
        self._commands.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._obey():
                self._step_began = time.monotonic()
                # Told before the computation: a decode instance binds while the prompt is computed.
                self._tell(self._engine.admit())
                self._tell(self._engine.compute())
                self._step_began = 0.0
        except BaseException as error:  # noqa: BLE001 - a dead engine must never look alive
            self._failed(error)

    def _obey(self) -> bool:
        """Runs the commands that are there, waiting for one when there is no work."""
        while True:
            try:
                command = self._commands.get(block=not self._engine.has_work)
            except queue.Empty:
                return True
            if command is None:
                return False
            self._tell(command(self._engine) or [])

    def _tell(self, events: list[Event]) -> None:
        self._load = self._engine.load()
        if events:
            self._deliver(events)
