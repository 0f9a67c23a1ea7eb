"""The engine's thread: commands between steps, rest when there is nothing to do, a loud death."""

import queue

import pytest
from context_runner import ContextRunner, GatedRunner, a_request, alone, build_engine

from pdserve.engine.events import Sampled
from pdserve.engine.thread import EngineThread
from pdserve.scheduling.sequence import Work

PATIENCE_S = 30


class Outside:
    """An engine thread and what came out of it."""

    def __init__(self, engine):
        self.events = queue.Queue()
        self.failures = queue.Queue()
        self.thread = EngineThread(engine, self._deliver, self.failures.put)
        self.thread.start()

    def _deliver(self, events):
        for event in events:
            self.events.put(event)

    def until_finished(self, key):
        """The tokens of `key`."""
        tokens = []
        while True:
            event = self.events.get(timeout=PATIENCE_S)
            if isinstance(event, Sampled) and event.key == key:
                tokens.append(event.token.token_id)
                if event.finish_reason is not None:
                    return tokens

    def ask(self, question):
        """What `question(engine)` answers on the engine's thread."""
        answer = queue.Queue()
        self.thread.submit(lambda engine: answer.put(question(engine)))
        return answer.get(timeout=PATIENCE_S)


@pytest.fixture
def outside():
    opened = []

    def open_thread(engine):
        opened.append(Outside(engine))
        return opened[-1]

    yield open_thread
    for one in opened:
        assert one.thread.stop(PATIENCE_S)


def test_requests_run_to_their_end(outside):
    host = outside(build_engine(ContextRunner(4)))
    request = a_request("r", max_tokens=9)
    host.thread.submit(lambda engine: engine.add(request))
    assert host.until_finished("r") == alone(request, 128)
    assert host.ask(lambda engine: engine.load().blocks.active) == 0


def test_a_command_waits_for_the_step_in_progress_and_precedes_the_next(outside):
    runner = GatedRunner(4)
    host = outside(build_engine(runner))
    host.thread.submit(lambda engine: engine.add(a_request("r", max_tokens=50)))
    assert runner.entered.acquire(timeout=PATIENCE_S)
    assert host.thread.step_age() > 0
    steps = queue.Queue()
    host.thread.submit(lambda engine: steps.put(engine.load().steps))
    host.thread.submit(lambda engine: engine.remove("r"))
    assert steps.empty(), "the step has not ended"
    runner.gate.release()
    assert steps.get(timeout=PATIENCE_S) == 1
    assert host.ask(lambda engine: engine.load().steps) == 1, "removed before a second step"
    assert host.thread.step_age() == 0
    assert host.thread.load().blocks.active == 0


def test_an_admission_is_told_while_the_step_still_computes(outside):
    runner = GatedRunner(4)
    host = outside(build_engine(runner))
    host.thread.submit(lambda engine: engine.add(a_request("r", max_tokens=1)))
    assert host.events.get(timeout=PATIENCE_S).cached_tokens == 0
    runner.gate.release()
    assert len(host.until_finished("r")) == 1


def test_events_of_a_command_are_delivered(outside):
    host = outside(build_engine(ContextRunner(4)))
    host.thread.submit(lambda engine: engine.add(a_request("d", work=Work.DECODE, max_tokens=1)))
    assert host.events.get(timeout=PATIENCE_S).key == "d"
    host.thread.submit(lambda engine: engine.loaded("d", 12))
    assert host.until_finished("d") == [12]


def count_turns(engine):
    """A list that grows with every step that the thread begins."""
    turns, admit = [], engine.admit
    engine.admit = lambda: turns.append(None) or admit()
    return turns


def test_it_rests_while_all_blocks_are_held(outside):
    engine = build_engine(ContextRunner(4), blocks=2)
    turns = count_turns(engine)
    host = outside(engine)
    host.thread.submit(lambda engine: engine.add(a_request("held", range(7), Work.PREFILL)))
    host.thread.submit(lambda engine: engine.add(a_request("waiting", [30])))
    for _ in range(50):
        host.ask(lambda engine: engine.has_work)
    assert 1 <= len(turns) <= 3, "one that computes, one that finds nothing, and no more"
    host.thread.submit(lambda engine: engine.remove("held"))
    assert host.until_finished("waiting")


def test_it_rests_while_kv_is_loading(outside):
    engine = build_engine(ContextRunner(4))
    turns = count_turns(engine)
    host = outside(engine)
    host.thread.submit(lambda engine: engine.add(a_request("d", work=Work.DECODE)))
    for _ in range(50):
        host.ask(lambda engine: engine.has_work)
    assert 1 <= len(turns) <= 2


class BrokenRunner(ContextRunner):
    def run(self, chunks, layers_done):
        raise FloatingPointError("the device is gone")


def test_what_ends_the_thread_is_reported(outside):
    host = outside(build_engine(BrokenRunner(4)))
    host.thread.submit(lambda engine: engine.add(a_request("r")))
    failure = host.failures.get(timeout=PATIENCE_S)
    assert isinstance(failure, FloatingPointError)


def test_a_command_that_fails_is_reported_too(outside):
    host = outside(build_engine(ContextRunner(4)))
    for _ in range(2):
        host.thread.submit(lambda engine: engine.add(a_request("twice", work=Work.PREFILL)))
    assert isinstance(host.failures.get(timeout=PATIENCE_S), ValueError)


def test_stop_tells_when_a_step_does_not_end():
    runner = GatedRunner(4)
    host = Outside(build_engine(runner))
    host.thread.submit(lambda engine: engine.add(a_request("r")))
    assert runner.entered.acquire(timeout=PATIENCE_S)
    assert not host.thread.stop(timeout_s=0.01)
    runner.gate.release()
    assert host.thread.stop(PATIENCE_S)
