"""What a client measures, by a clock of the test's own, and that nothing of a message is lost."""

from dataclasses import fields

import grpc
import pytest
from flaky_router import END, PIECES

from pdserve import client
from pdserve.client.connection import Connection
from pdserve.client.exchange import Exchange
from pdserve.client.explanation import explanation_of
from pdserve.errors import ConfigError, OverloadedError
from pdserve.rpc.errors import DETAIL_KEY, error_detail
from pdserve.rpc.v1 import router_pb2, types_pb2


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Refused(grpc.RpcError):
    """What gRPC raises when the router has refused."""

    def __init__(self, error: OverloadedError) -> None:
        self._detail = error_detail(error).SerializeToString()

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        return "full"

    def trailing_metadata(self):
        return ((DETAIL_KEY, self._detail),)


def exchange(clock: Clock, *, timeout_s: float = 60.0, retries: int = 0) -> Exchange:
    connection = Connection("127.0.0.1:1", "", None, timeout_s, retries)
    return Exchange(connection, "x", client.Options(), clock)


def test_times_run_from_sending_to_the_first_piece_and_to_the_end() -> None:
    clock = Clock()
    it = exchange(clock)
    clock.now += 50  # a stream may be made long before it is read
    assert it.next_timeout_s() == 60
    clock.now += 0.25
    it.take(PIECES[0])
    clock.now += 0.5
    it.take(PIECES[1])
    assert it.take(END) is None
    assert it.answer is not None
    assert (it.answer.ttft_s, it.answer.total_s) == (0.25, 0.75)
    # Those of the router are its own.
    assert (it.answer.ledger.ttft_s, it.answer.ledger.total_s) == (0.25, 0.75)


def test_retries_share_one_deadline_and_grow_apart() -> None:
    clock = Clock()
    it = exchange(clock, retries=9)
    for tried in range(9):
        clock.now += 1.0
        assert it.next_timeout_s() == pytest.approx(60.0 - tried)
        delay_s = it.delay_after(Refused(OverloadedError("full", retry_after_s=2.0)))
        assert 2.0 <= delay_s <= 2.0 + min(0.1 * 2**tried, 5.0)
    it.next_timeout_s()
    with pytest.raises(OverloadedError, match="full"):
        it.delay_after(Refused(OverloadedError("full")))


def test_no_retry_begins_after_the_deadline() -> None:
    clock = Clock()
    it = exchange(clock, retries=9)
    it.next_timeout_s()
    clock.now += 59.0
    with pytest.raises(OverloadedError):
        it.delay_after(Refused(OverloadedError("full", retry_after_s=2.0)))


def test_a_call_that_begins_as_another_thread_closes_is_ended() -> None:
    class Call:
        cancelled = False

        def cancel(self) -> bool:
            self.cancelled = True
            return True

    it = exchange(Clock())
    call = Call()
    it.next_timeout_s()
    it.close()
    it.opened(call)
    assert call.cancelled


@pytest.mark.parametrize(
    ("kind", "message", "elsewhere"),
    [
        (client.Ledger, types_pb2.Ledger, set()),
        (client.Attempt, types_pb2.Attempt, set()),
        (client.ScoredPlacement, types_pb2.ScoredPlacement, set()),
        (client.Link, router_pb2.LinkStatus, set()),
        (client.Cluster, router_pb2.GetClusterResponse, set()),
        (client.Model, router_pb2.Model, set()),
        (client.Slo, types_pb2.Slo, set()),
        (client.Blocks, types_pb2.BlockCounts, set()),
        (
            client.Explanation,
            router_pb2.ExplainResponse,
            {"prompt_tokens", "output_tokens", "cached_tokens", "error", "error_text"},
        ),
    ],
)
def test_every_field_of_a_message_reaches_the_program(kind, message, elsewhere) -> None:
    made = {"usage", "failure"} if elsewhere else set()
    names = {field.name for field in fields(kind)}
    assert names - made == set(message.DESCRIPTOR.fields_by_name) - elsewhere


def test_every_sampling_parameter_and_priority_can_be_asked_for() -> None:
    known = set(client.Options.__annotations__)
    assert set(types_pb2.Sampling.DESCRIPTOR.fields_by_name) <= known
    classes = {name.removeprefix("PRIORITY_").lower() for name in types_pb2.Priority.keys()[1:]}
    assert classes == {str(each) for each in client.Priority}


def test_an_explanation_says_what_did_not_happen_as_none() -> None:
    running = explanation_of(router_pb2.ExplainResponse(state="running"))
    assert (running.ledger, running.failure, running.slo) == (None, None, client.Slo())
    assert running.priority is client.Priority.NORMAL
    refused = router_pb2.ExplainResponse(
        state="refused",
        slo=types_pb2.Slo(ttft_ms=50, hard=True),
        priority=types_pb2.PRIORITY_HIGH,
        error=types_pb2.ErrorDetail(reason="overloaded", retry_after_s=2),
        error_text="full",
        ledger=types_pb2.Ledger(total_s=1),
    )
    explained = explanation_of(refused)
    assert explained.failure == client.Failure("overloaded", "full", "", "", 2.0)
    assert explained.slo == client.Slo(ttft_ms=50, hard=True)
    assert explained.priority is client.Priority.HIGH
    assert explained.ledger is not None


@pytest.mark.parametrize(("name", "value"), [("timeout_s", 0), ("retries", -1)])
def test_settings_that_make_no_sense_are_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError) as raised:
        client.Client("127.0.0.1:1", **{name: value})
    assert raised.value.field == name
