"""One step after another: what the engine tells, to whom, and when it has nothing to do."""

from dataclasses import dataclass, field

from context_runner import ContextRunner, a_request, alone, build_engine, next_token

from pdserve.engine.events import Admitted, Sampled
from pdserve.scheduling.sequence import FinishReason, Work
from pdserve.scheduling.step_work import StepWork


@dataclass
class Listener:
    told: list[tuple] = field(default_factory=list)

    def admitted(self, key, blocks, cached_tokens):
        self.told.append(("admitted", key, blocks, cached_tokens))

    def computed(self, key, layer_begin, layer_end, token_end):
        self.told.append(("computed", key, layer_begin, layer_end, token_end))


def run_out(engine):
    """Steps until there is no work; returns the events."""
    events = []
    while engine.has_work:
        events += engine.step()
        engine.check()
    return events


def tokens_of(events, key):
    return [e.token.token_id for e in events if isinstance(e, Sampled) and e.key == key]


def test_a_request_is_admitted_once_and_yields_each_token_once():
    engine = build_engine(ContextRunner(4))
    request = a_request("r", max_tokens=6)
    engine.add(request)
    events = run_out(engine)
    assert isinstance(events[0], Admitted)
    assert [event.index for event in events[1:]] == [0, 1, 2, 3, 4, 5]
    assert tokens_of(events, "r") == alone(request, 100)
    assert [event.finish_reason for event in events[1:]] == [None] * 5 + [FinishReason.LENGTH]


def test_a_retry_continues_where_the_first_attempt_stopped():
    whole = alone(a_request("r", max_tokens=6), 100)
    engine = build_engine(ContextRunner(4))
    first = a_request("r", max_tokens=6)
    retry = type(first)("r", first.prompt_ids, tuple(whole[:2]), first.sampling, first.work)
    engine.add(retry)
    events = run_out(engine)
    assert tokens_of(events, "r") == whole[2:]
    assert [event.index for event in events[1:]] == [2, 3, 4, 5]


def test_preemption_is_counted_and_changes_no_token():
    engine = build_engine(ContextRunner(2), blocks=6, block_size=2)
    requests = [a_request(key, prompt, max_tokens=7) for key, prompt in (("a", [1]), ("b", [2]))]
    for request in requests:
        engine.add(request)
    events = run_out(engine)
    for request in requests:
        assert tokens_of(events, request.key) == alone(request, 12)
    admitted = [event.key for event in events if isinstance(event, Admitted)]
    assert admitted == ["a", "b"], "coming back is no news"
    assert max(event.preemptions for event in events if isinstance(event, Sampled)) > 0


def test_the_listener_follows_a_prefill_layer_by_layer_and_chunk_by_chunk():
    listener = Listener()
    engine = build_engine(ContextRunner(4), max_tokens=6, listener=listener)
    engine.add(a_request("p", range(10), Work.PREFILL))
    admitted = engine.step()[0]
    engine.step()
    assert listener.told == [
        ("admitted", "p", admitted.blocks, 0),
        ("computed", "p", 0, 1, 6),
        ("computed", "p", 1, 2, 6),
        ("computed", "p", 0, 1, 10),
        ("computed", "p", 1, 2, 10),
    ]


def test_the_listener_hears_of_cached_tokens_and_of_nothing_but_prefills():
    listener = Listener()
    engine = build_engine(ContextRunner(4), listener=listener)
    engine.add(a_request("local", range(10)))
    run_out(engine)
    assert listener.told == []
    engine.add(a_request("p", range(10), Work.PREFILL))
    run_out(engine)
    kinds = [entry[0] for entry in listener.told]
    assert kinds == ["admitted", "computed", "computed"]
    assert listener.told[0][3] == 8


def test_held_kv_gives_the_engine_nothing_to_do_until_it_is_removed():
    engine = build_engine(ContextRunner(4), blocks=2)
    engine.add(a_request("held", range(7), Work.PREFILL))
    engine.step()
    engine.add(a_request("waiting", [30]))
    assert engine.has_work
    assert engine.step() == []
    assert not engine.has_work, "the blocks are held: only a command can change that"
    engine.remove("held")
    assert engine.has_work
    assert tokens_of(run_out(engine), "waiting") == alone(a_request("waiting", [30]), 8)


def test_settling_a_quarantine_wakes_who_waits_for_its_blocks():
    engine = build_engine(ContextRunner(4), blocks=2)
    engine.add(a_request("d", range(7), Work.DECODE))
    engine.step()
    engine.add(a_request("waiting", [30]))
    engine.remove("d", unsettled=True)
    assert engine.step() == []
    assert not engine.has_work
    engine.settle("d")
    assert tokens_of(run_out(engine), "waiting")


def test_a_pulled_sequence_decodes_from_the_token_that_prefill_sampled():
    runner = ContextRunner(4)
    engine = build_engine(runner)
    request = a_request("d", range(6), Work.DECODE)
    engine.add(request)
    (admitted,) = engine.step()
    assert not engine.step()
    assert not engine.has_work
    runner.write(admitted.blocks, 0, request.prompt_ids)
    first = next_token(request.prompt_ids)
    assert engine.loaded("d", first) == []
    events = run_out(engine)
    assert [first, *tokens_of(events, "d")] == alone(request, 100)
    assert events[0].index == 1


def test_a_pulled_sequence_that_is_over_says_so():
    engine = build_engine(ContextRunner(4))
    engine.add(a_request("d", range(6), Work.DECODE, max_tokens=1))
    engine.step()
    (event,) = engine.loaded("d", 12)
    assert (event.index, event.token.token_id) == (0, 12)
    assert event.finish_reason is FinishReason.LENGTH
    assert engine.load().blocks.active == 0


def test_commands_for_sequences_that_are_gone_do_nothing():
    engine = build_engine(ContextRunner(4))
    engine.remove("never")
    engine.settle("never")
    assert engine.loaded("never", 1) == []
    assert not engine.has_work


def test_end_tokens_are_the_models_own_and_the_requests():
    plain = alone(a_request("r", [3], ignore_eos=True, max_tokens=30), 100)
    stop = plain[4]
    engine = build_engine(ContextRunner(4))
    engine.add(a_request("r", [3], stop_token_ids=(stop,), max_tokens=30))
    events = run_out(engine)
    assert tokens_of(events, "r") == plain[: plain.index(stop) + 1]
    assert events[-1].finish_reason is FinishReason.STOP


def test_load_counts_steps_that_computed_something():
    engine = build_engine(ContextRunner(4))
    engine.step()
    assert engine.load().steps == 0
    engine.add(a_request("r", max_tokens=3))
    run_out(engine)
    assert engine.load().steps == 3


def test_steps_are_logged_with_their_work_and_the_time_of_their_computation_alone():
    now = [100.0]

    class SlowRunner(ContextRunner):
        def run(self, chunks, layers_done):
            now[0] += 0.5
            return super().run(chunks, layers_done)

    engine = build_engine(SlowRunner(4), max_tokens=6, clock=lambda: now[0])
    engine.add(a_request("r", range(8), max_tokens=2))
    run_out(engine)
    assert list(engine.step_log.take()) == [
        (StepWork(6, 36, 0, 0), 0.5),
        (StepWork(2, 64 - 36, 0, 0), 0.5),
        (StepWork(0, 0, 1, 9), 0.5),
    ]
    assert list(engine.step_log.take()) == []
