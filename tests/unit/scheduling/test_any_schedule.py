"""Whatever else happens in an instance, every sequence gets the tokens it would get alone."""

from context_runner import ContextRunner, alone, build_engine, next_token
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pdserve.engine.engine import EngineRequest
from pdserve.engine.events import Admitted
from pdserve.sampling import SamplingParams
from pdserve.scheduling.sequence import Work
from pdserve.scheduling.urgency import ORDINARY, Priority, Urgency

# Prompts are cut from few texts, so that prefixes meet in the cache.
TEXTS = [[text] * 3 + list(range(text, text + 20)) for text in range(3)]
JUNK = -1


class EngineMachine(RuleBasedStateMachine):
    """Arrivals, steps, transfers and cancels in any order, over an engine of any size."""

    @initialize(
        blocks=st.integers(3, 14),
        block_size=st.integers(1, 5),
        max_tokens=st.integers(1, 24),
        max_seqs=st.integers(1, 5),
        prefix_cache=st.booleans(),
        urgencies=st.booleans(),
    )
    def build(self, blocks, block_size, max_tokens, max_seqs, prefix_cache, urgencies):
        self.now = 0.0
        self.urgencies = urgencies
        self.capacity = blocks * block_size
        self.runner = ContextRunner(block_size)
        self.engine = build_engine(
            self.runner,
            blocks=blocks,
            block_size=block_size,
            max_tokens=max_tokens,
            max_seqs=max_seqs,
            prefix_cache=prefix_cache,
            clock=lambda: self.now,
        )
        self.arrivals = 0
        self.requests = {}
        self.outputs = {}
        self.finished = set()
        self.tables = {}  # of admitted sequences: blocks, cached tokens
        self.loading = []
        self.held = []
        self.unsettled = {}  # key -> blocks that may still be written, tokens
        self.admissions = []

    @rule(
        text=st.sampled_from(TEXTS),
        prompt=st.integers(1, 18),
        done=st.integers(0, 3),
        work=st.sampled_from(Work),
        ignore_eos=st.booleans(),
        min_tokens=st.integers(0, 6),
        more=st.integers(1, 12),
        priority=st.sampled_from(Priority),
        due_in_s=st.none() | st.integers(-5, 30),
    )
    def arrive(self, text, prompt, done, work, ignore_eos, min_tokens, more, priority, due_in_s):
        prompt = min(prompt, self.capacity - done - 1)
        if prompt < 1:
            return
        due_s = None if due_in_s is None else self.now + due_in_s
        urgency = Urgency(priority, due_s) if self.urgencies else ORDINARY
        self.add(text[:prompt], done, work, ignore_eos, min_tokens, done + more, urgency)

    def add(self, prompt, done, work, ignore_eos, min_tokens, max_tokens, urgency):
        outputs = []
        for _ in range(done):
            outputs.append(next_token([*prompt, *outputs]))
        self.arrivals += 1
        key = str(self.arrivals)
        sampling = SamplingParams(
            max_tokens=max_tokens, min_tokens=min(min_tokens, max_tokens), ignore_eos=ignore_eos
        )
        request = EngineRequest(key, tuple(prompt), tuple(outputs), sampling, work, urgency)
        self.requests[key] = request
        self.outputs[key] = outputs
        self.engine.add(request)

    @rule(seconds=st.integers(0, 20))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def step(self):
        steps = self.engine.load().steps
        events = self.engine.step()
        if self.engine.load().steps == steps and not events:
            assert not self.engine.has_work
        for event in events:
            if isinstance(event, Admitted):
                self.admit(event)
            else:
                self.collect(event)

    def admit(self, event):
        self.admissions.append(int(event.key))
        self.tables[event.key] = event.blocks
        request = self.requests[event.key]
        if request.work is Work.DECODE:
            self.loading.append((event.key, event.blocks, event.cached_tokens))

    def collect(self, event):
        outputs, request = self.outputs[event.key], self.requests[event.key]
        assert event.index == len(outputs)
        outputs.append(event.token.token_id)
        if request.work is Work.PREFILL:
            self.held.append(event.key)
        if event.finish_reason is not None:
            self.finished.add(event.key)

    @precondition(lambda self: self.loading)
    @rule(data=st.data())
    def land(self, data):
        arrival = data.draw(st.sampled_from(self.loading))
        self.loading.remove(arrival)
        self.load(*arrival)

    def load(self, key, blocks, cached):
        request = self.requests[key]
        tokens = [*request.prompt_ids, *request.output_ids]
        self.runner.write(blocks, cached, tokens[cached:])
        first = next_token(tokens)
        self.outputs[key].append(first)
        for event in self.engine.loaded(key, first):
            assert (event.key, event.token.token_id) == (key, first)
            self.finished.add(key)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data):
        key = data.draw(st.sampled_from(sorted(self.requests)))
        self.engine.remove(key)
        self.forget(key)

    @precondition(lambda self: self.loading)
    @rule(data=st.data())
    def abort_a_transfer(self, data):
        arrival = data.draw(st.sampled_from(self.loading))
        key, blocks, cached = arrival
        self.engine.remove(key, unsettled=True)
        self.unsettled[key] = (blocks, cached, len(self.requests[key].prompt_ids))
        self.forget(key)

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data())
    def settle(self, data):
        key = data.draw(st.sampled_from(sorted(self.unsettled)))
        blocks, cached, end = self.unsettled.pop(key)
        self.runner.write(blocks, cached, [JUNK] * (end - cached))  # the last bytes that land
        self.engine.settle(key)

    def forget(self, key):
        self.loading = [arrival for arrival in self.loading if arrival[0] != key]
        self.held = [held for held in self.held if held != key]
        del self.requests[key], self.outputs[key]
        self.finished.discard(key)

    @invariant()
    def nothing_is_out_of_place(self):
        if not hasattr(self, "engine"):
            return
        self.engine.check()
        in_order = self.admissions == sorted(self.admissions)
        assert self.urgencies or in_order, "equals are served in the order of arrival"
        for key, outputs in self.outputs.items():
            assert outputs == self.expected(key)[: len(outputs)]
        for key in self.held:
            request = self.requests[key]
            tokens = [*request.prompt_ids, *request.output_ids]
            assert self.runner.read(self.tables[key], len(tokens)) == tokens

    def expected(self, key):
        return alone(self.requests[key], self.capacity)

    def teardown(self):
        """Lets everything end: each sequence must, within a bounded number of steps."""
        if not hasattr(self, "engine"):
            return
        budget = 50 + 2 * sum(self.capacity for _ in self.requests) * (1 + len(self.requests))
        while self.engine.has_work or self.loading or self.held or self.unsettled:
            budget -= 1
            assert budget, "somebody starves"
            self.step()
            for arrival in self.loading:
                self.load(*arrival)
            self.loading = []
            for key in self.held:
                self.engine.remove(key)
            self.held = []
            for key in self.unsettled:
                self.engine.settle(key)
            self.unsettled = {}
            self.nothing_is_out_of_place()
        for key, request in self.requests.items():
            whole = self.expected(key)
            wanted = (
                whole if request.work is not Work.PREFILL else whole[: 1 + request_done(request)]
            )
            assert self.outputs[key] == wanted
            assert (key in self.finished) == (wanted == whole)
        counts = self.engine.load().blocks
        assert (counts.active, counts.quarantined) == (0, 0)


def request_done(request):
    return len(request.output_ids)


EngineMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestEngineMachine = EngineMachine.TestCase
