"""The engine that chaos tests rely on: its tokens can be told beforehand, and tell of damage."""

import pytest

from pdserve.config import InstanceConfig
from pdserve.engine.engine import Engine, EngineRequest
from pdserve.engine.events import Sampled
from pdserve.instance.loading import LoadedEngine, make_engine
from pdserve.sampling import SamplingParams
from pdserve.scheduling.sequence import Work
from tests.doubles.context_engine import DAMAGED, Pace, continuation, load_context_engine
from tests.doubles.holds import Holds

pytestmark = pytest.mark.model

CONFIG = InstanceConfig(max_batch_tokens=16)
PROMPT = tuple(range(2000, 2040))


def engine() -> tuple[Engine, LoadedEngine]:
    holds = Holds(lambda _: None)
    loaded = load_context_engine(CONFIG, Pace(0, 0), holds, blocks=20, head_dim=4)
    return make_engine(CONFIG, loaded, None), loaded


def tokens(it: Engine, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found += [each.token.token_id for each in it.step() if isinstance(each, Sampled)]
    return found


def request() -> EngineRequest:
    sampling = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    return EngineRequest("r", PROMPT, (), sampling, Work.BOTH)


def test_a_client_can_tell_what_comes() -> None:
    it, _ = engine()
    it.add(request())
    assert tokens(it, 20) == continuation(PROMPT, 20)


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("kind", [0, 1])
def test_kv_that_is_not_what_was_written_shows(layer: int, kind: int) -> None:
    it, loaded = engine()
    it.add(request())
    tokens(it, 3)
    loaded.pool.data[layer, kind] += 1.0
    assert tokens(it, 1) == [DAMAGED]


def test_kv_of_another_layer_shows() -> None:
    it, loaded = engine()
    it.add(request())
    tokens(it, 3)
    loaded.pool.data[1] = loaded.pool.data[2]
    assert tokens(it, 1) == [DAMAGED]
