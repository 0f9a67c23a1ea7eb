"""What is known of a request without its instances."""

import time

import pytest
from prometheus_client import CollectorRegistry
from router_bench import tiny_model
from router_fakes import ANSWER, EOS, OUTPUT

from pdserve.kv.layout import KvLayout
from pdserve.rpc.v1 import types_pb2
from pdserve.sampling import SamplingParams
from services.router.generation import Generation
from services.router.ledger import Timeline
from services.router.live import LiveRequest
from services.router.metrics import RouterMetrics
from services.router.placer import Placement, Rung
from services.router.view import Candidate, Load

DECODE = Candidate("d", "life", KvLayout("f", "float32", 2, 1, 4, 16), 0, Load(0, 0), 0.0)


def live_request(stops: tuple[str, ...] = (), **sampling) -> LiveRequest:
    generation = Generation(
        request_id="r",
        run_id="r.1",
        prompt_token_ids=[1, 2, 3],
        sampling=SamplingParams(**{"max_tokens": 100} | sampling),
        slo=types_pb2.Slo(),
        priority=types_pb2.PRIORITY_NORMAL,
        stops=stops,
        continues_prompt=True,
        end_token_ids=frozenset((EOS,)),
    )
    now = time.monotonic()
    metrics = RouterMetrics(CollectorRegistry())
    detokenizer = tiny_model().tokenizer.detokenizer(continuing=True)
    live = LiveRequest(generation, detokenizer, Timeline(now), now + 60, metrics)
    live.begin_attempt(Placement(Rung.LOCAL, None, DECODE, "test"))
    return live


async def deliver(live: LiveRequest, count: int) -> None:
    ids = OUTPUT[:count]
    await live.deliver([types_pb2.Token(id=each, index=i) for i, each in enumerate(ids)])


@pytest.mark.parametrize(
    ("fields", "count", "reason"),
    [
        ({}, 5, None),
        ({}, len(OUTPUT), types_pb2.FINISH_REASON_STOP),
        ({"min_tokens": len(OUTPUT)}, len(OUTPUT), types_pb2.FINISH_REASON_STOP),
        ({"min_tokens": len(OUTPUT) + 1}, len(OUTPUT), None),
        ({"max_tokens": 5}, 5, types_pb2.FINISH_REASON_LENGTH),
        ({"stops": ("quick",)}, 20, types_pb2.FINISH_REASON_STOP),
        ({"stops": ("quick",)}, 8, None),
    ],
    ids=[
        "goes on",
        "end token",
        "just late enough",
        "too early to end",
        "max_tokens",
        "stop string",
        "half of one",
    ],
)
async def test_a_complete_output_is_recognised_without_its_instance(fields, count, reason) -> None:
    live = live_request(**fields)
    await deliver(live, count)
    assert live.reason_to_end() == reason


async def test_text_of_an_unfinished_stop_string_comes_at_the_end() -> None:
    live = live_request(stops=("quicksand",))
    await deliver(live, 9)
    assert live.end(types_pb2.FINISH_REASON_LENGTH) == types_pb2.FINISH_REASON_LENGTH
    live.outbox.close()
    text = ""
    while (event := await live.outbox.get()) is not None:
        text += event.delta.text
    assert text == ANSWER[:9]
