"""Circuit breakers of pairs, by a clock that a test moves."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.router import breakers as module
from services.router.breakers import Breakers, BreakerState

P, D = "p", "d"
LIMIT, COOLDOWN_S = 3, 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def breakers(clock: Clock, limit: int = LIMIT, chance: float = 0.0) -> Breakers:
    return Breakers(limit, COOLDOWN_S, clock, lambda: chance)


def opened(clock: Clock) -> Breakers:
    it = breakers(clock)
    for _ in range(LIMIT):
        it.failed(P, D)
    return it


def test_a_pair_is_left_alone_after_so_many_failures_in_a_row() -> None:
    it = breakers(Clock())
    for _ in range(LIMIT - 1):
        it.failed(P, D)
    assert not it.open_pairs()
    it.failed(P, D)
    assert it.open_pairs() == {(P, D)}
    assert it.state(P, D) is BreakerState.OPEN
    assert it.state(P, "other") is it.state("other", D) is BreakerState.CLOSED


def test_a_success_in_between_begins_the_count_anew() -> None:
    it = breakers(Clock())
    for _ in range(5):
        it.failed(P, D)
        it.failed(P, D)
        it.succeeded(P, D)
    assert not it.open_pairs()
    assert len(it) == 0


def test_after_the_cooldown_it_is_half_open_and_still_not_used() -> None:
    clock = Clock()
    it = opened(clock)
    clock.now += COOLDOWN_S - 0.1
    assert it.due() == []
    clock.now += 0.2
    assert it.state(P, D) is BreakerState.HALF_OPEN
    assert it.due() == [(P, D)]
    assert it.open_pairs() == {(P, D)}
    assert it.count() == {BreakerState.HALF_OPEN: 1}


def test_what_began_before_it_opened_decides_nothing() -> None:
    clock = Clock()
    it = opened(clock)
    it.succeeded(P, D)
    it.passed(P, D)  # a canary of a pair that is no longer, or not yet, half open
    assert it.state(P, D) is BreakerState.OPEN
    clock.now += COOLDOWN_S
    it.succeeded(P, D)
    it.failed(P, D)
    assert it.state(P, D) is BreakerState.HALF_OPEN


def test_a_canary_that_passes_closes_it_on_probation() -> None:
    clock = Clock()
    it = opened(clock)
    clock.now += COOLDOWN_S
    it.passed(P, D)
    assert it.state(P, D) is BreakerState.CLOSED
    assert not it.open_pairs()
    it.failed(P, D)  # one is enough now
    assert it.state(P, D) is BreakerState.OPEN
    clock.now += COOLDOWN_S
    assert it.state(P, D) is BreakerState.OPEN  # and it lasts longer
    clock.now += COOLDOWN_S
    it.passed(P, D)
    it.succeeded(P, D)
    it.failed(P, D)
    assert it.state(P, D) is BreakerState.CLOSED


def test_canaries_that_fail_make_it_wait_ever_longer_up_to_a_bound() -> None:
    clock = Clock()
    it = opened(clock)
    waits = []
    for _ in range(9):
        waited = 0.0
        while not it.due():
            clock.now += COOLDOWN_S
            waited += COOLDOWN_S
        waits.append(waited / COOLDOWN_S)
        it.refused(P, D)
    assert waits == [1, 2, 4, 8, 16, 32, 32, 32, 32]


def test_a_canary_that_told_nothing_is_sent_again_as_soon_as_the_last() -> None:
    clock = Clock()
    it = opened(clock)
    for _ in range(3):
        clock.now += COOLDOWN_S
        assert it.due() == [(P, D)]
        it.undecided(P, D)
        assert it.due() == []


def test_chance_keeps_routers_apart() -> None:
    clock = Clock()
    for chance, later in ((0.0, 1.0), (1.0, 1.5)):
        it = breakers(clock, limit=1, chance=chance)
        it.failed(P, D)
        began = clock.now
        clock.now = began + COOLDOWN_S * later - 0.1
        assert it.due() == []
        clock.now = began + COOLDOWN_S * later
        assert it.due() == [(P, D)]


def test_those_who_wait_longest_are_tried_first() -> None:
    clock = Clock()
    it = breakers(clock, limit=1)
    for decode in ("d2", "d0", "d1"):
        it.failed(P, decode)
        clock.now += 1
    clock.now += COOLDOWN_S
    assert it.due() == [(P, "d2"), (P, "d0"), (P, "d1")]


def test_pairs_of_instances_that_are_gone_are_forgotten() -> None:
    it = breakers(Clock(), limit=1)
    for pair in ((P, D), (P, "gone"), ("gone", D)):
        it.failed(*pair)
    it.keep({P, D})
    assert it.open_pairs() == {(P, D)}
    assert len(it) == 1


def test_there_is_a_bound(monkeypatch) -> None:
    monkeypatch.setattr(module, "_MAX_PAIRS", 10)
    it = breakers(Clock(), limit=1)
    for number in range(100):
        it.failed(P, str(number))
    assert len(it) == len(it.open_pairs()) == 10
    assert it.state(P, "99") is BreakerState.OPEN


class Model:
    """A breaker in other words: what has happened, from which its state follows."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.rests = 0  # since a request's own success
        self.until: float | None = None

    def trip(self, now: float) -> None:
        self.until = now + COOLDOWN_S * min(2**self.rests, 32)
        self.rests += 1


class Machine(RuleBasedStateMachine):
    """Any order of events on a few pairs: each pair follows its own rules, and nobody else's."""

    pairs = st.tuples(st.sampled_from("pq"), st.sampled_from("de"))

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.it = breakers(self.clock)
        self.models: dict[tuple[str, str], Model] = {}

    def model(self, pair) -> Model:
        return self.models.setdefault(pair, Model())

    def half_open(self, pair) -> bool:
        until = self.model(pair).until
        return until is not None and until <= self.clock.now

    @rule(pair=pairs)
    def succeed(self, pair) -> None:
        self.it.succeeded(*pair)
        if self.model(pair).until is None:
            self.models[pair] = Model()

    @rule(pair=pairs)
    def fail(self, pair) -> None:
        self.it.failed(*pair)
        model = self.model(pair)
        if model.until is None:
            model.in_a_row += 1
            if model.in_a_row >= LIMIT:
                model.trip(self.clock.now)

    @rule(pair=pairs, outcome=st.sampled_from(("passed", "refused", "undecided")))
    def canary(self, pair, outcome: str) -> None:
        getattr(self.it, outcome)(*pair)
        model = self.model(pair)
        if not self.half_open(pair):
            return
        if outcome == "passed":
            model.until, model.in_a_row = None, LIMIT - 1
        elif outcome == "refused":
            model.trip(self.clock.now)
        else:
            model.rests -= 1
            model.trip(self.clock.now)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(gone=st.sampled_from("pqde"))
    def leave(self, gone: str) -> None:
        self.it.keep(set("pqde") - {gone})
        for pair in [pair for pair in self.models if gone in pair]:
            del self.models[pair]

    @invariant()
    def agrees(self) -> None:
        closed = {pair for pair, model in self.models.items() if model.until is None}
        half_open = {pair for pair in self.models if self.half_open(pair)}
        assert self.it.open_pairs() == self.models.keys() - closed
        assert set(self.it.due()) == half_open
        for pair in self.models:
            state = self.it.state(*pair)
            assert (state is BreakerState.CLOSED) == (pair in closed)
            assert (state is BreakerState.HALF_OPEN) == (pair in half_open)
        assert self.it.count().total() == len(self.models) - len(closed)
        assert len(self.it) <= len(self.models)


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = Machine.TestCase
