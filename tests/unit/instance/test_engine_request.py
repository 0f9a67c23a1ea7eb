"""What a request message says becomes what the engine takes, or a clear refusal."""

import math
import time

import pytest

from pdserve.errors import InvalidRequestError
from pdserve.instance.requests import RequestLimits, engine_request
from pdserve.rpc.v1 import decode_pb2, prefill_pb2, types_pb2
from pdserve.scheduling.sequence import Work
from pdserve.scheduling.urgency import ORDINARY, Priority

LIMITS = RequestLimits(vocab_size=100, max_model_len=64)


def taken(kind=prefill_pb2.PrefillRequest, **fields):
    ref = types_pb2.RequestRef(request_id="r", attempt=2)
    message = kind(ref=ref, prompt_token_ids=[1, 2, 3], **fields)
    return engine_request(message, Work.BOTH, LIMITS)


def test_a_request_that_says_nothing_of_urgency_is_ordinary():
    request = taken()
    assert request.urgency == ORDINARY
    assert request.tpot_limit_s == 0.0


@pytest.mark.parametrize("kind", [prefill_pb2.PrefillRequest, decode_pb2.DecodeRequest])
def test_urgency_and_objective_reach_the_engine(kind):
    before = time.monotonic()
    urgency = types_pb2.Urgency(priority=types_pb2.PRIORITY_HIGH, due_in_s=-0.5)
    request = taken(kind, urgency=urgency, slo=types_pb2.Slo(tpot_ms=50))
    assert request.urgency.priority is Priority.HIGH
    assert before - 0.5 <= request.urgency.due_s <= time.monotonic() - 0.5
    assert request.tpot_limit_s == pytest.approx(0.05)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_a_due_time_that_is_no_time_is_refused(seconds):
    with pytest.raises(InvalidRequestError, match="due_in_s") as caught:
        taken(urgency=types_pb2.Urgency(due_in_s=seconds))
    assert caught.value.field == "urgency.due_in_s"


def test_an_unknown_priority_is_refused():
    with pytest.raises(InvalidRequestError, match=r"urgency\.priority is 9"):
        taken(urgency=types_pb2.Urgency(priority=9))


@pytest.mark.parametrize("objective_ms", [math.nan, math.inf, -1.0])
def test_an_objective_that_is_none_is_refused(objective_ms):
    with pytest.raises(InvalidRequestError, match=r"slo\.tpot_ms"):
        taken(slo=types_pb2.Slo(tpot_ms=objective_ms))
