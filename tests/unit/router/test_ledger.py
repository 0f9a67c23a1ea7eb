"""The ledger adds up, and gives each second to what the client waited for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.ledger import AttemptTimes, Timeline

BEFORE = ("router_queue_s", "prefill_queue_s", "prefill_compute_s", "first_token_out_s")
AFTER = (
    "decode_admission_s",
    "transfer_wait_s",
    "transfer_s",
    "decode_steps_s",
    "recovery_s",
)


def segments(ledger) -> dict[str, float]:
    values = {name: round(getattr(ledger, name), 4) for name in (*BEFORE, *AFTER)}
    return {name: value for name, value in values.items() if value}


def test_every_second_of_a_plain_request_has_its_place() -> None:
    attempt = AttemptTimes(
        dispatched=101.0,
        started=103.0,
        first_token=106.0,
        admitted=108.0,
        kv_ready=113.0,
        transfer_s=2.0,
        transfer_bytes=10,
        last_token=120.0,
    )
    timeline = Timeline(received=100.0, delivered=106.5, attempts=[attempt])
    ledger = timeline.settle(121.0, output_tokens=8)
    assert segments(ledger) == {
        "router_queue_s": 1.0,
        "prefill_queue_s": 2.0,
        "prefill_compute_s": 3.0,
        "first_token_out_s": 0.5,
        "decode_admission_s": 1.5,
        "transfer_wait_s": 3.0,
        "transfer_s": 2.0,
        "decode_steps_s": 8.0,
    }
    assert (ledger.ttft_s, ledger.total_s, ledger.tpot_s) == (6.5, 21.0, 2.0)
    assert (ledger.transfer_bytes, ledger.transfer_wall_s) == (10, 2.0)


def test_a_hand_off_that_the_first_token_hides_costs_nothing() -> None:
    attempt = AttemptTimes(
        dispatched=100.0,
        started=100.0,
        first_token=106.0,
        admitted=101.0,
        kv_ready=105.0,
        transfer_s=3.0,
        last_token=110.0,
    )
    ledger = Timeline(100.0, 106.0, [attempt]).settle(110.0, 5)
    assert segments(ledger) == {"prefill_compute_s": 6.0, "decode_steps_s": 4.0}
    assert ledger.transfer_wall_s == 3.0


def test_an_attempt_that_failed_before_the_first_token_is_time_in_the_queue() -> None:
    failed = AttemptTimes(dispatched=101.0, started=102.0)
    second = AttemptTimes(dispatched=104.0, started=105.0, first_token=107.0, last_token=107.0)
    ledger = Timeline(100.0, 107.0, [failed, second]).settle(107.0, 1)
    assert segments(ledger) == {
        "router_queue_s": 4.0,
        "prefill_queue_s": 1.0,
        "prefill_compute_s": 2.0,
    }


def test_recovery_runs_from_the_last_token_before_to_the_first_after_a_failure() -> None:
    first = AttemptTimes(dispatched=100.0, started=100.0, first_token=102.0, last_token=105.0)
    in_vain = AttemptTimes(dispatched=107.0, started=108.0)
    third = AttemptTimes(dispatched=109.0, started=110.0, first_token=112.0, last_token=115.0)
    ledger = Timeline(100.0, 102.0, [first, in_vain, third]).settle(115.0, 10)
    assert segments(ledger) == {
        "prefill_compute_s": 2.0,
        "decode_steps_s": 6.0,
        "recovery_s": 7.0,
    }


def test_an_attempt_that_lost_only_the_last_word_ends_in_recovery() -> None:
    first = AttemptTimes(dispatched=100.0, started=100.0, first_token=102.0, last_token=105.0)
    in_vain = AttemptTimes(dispatched=107.0)
    ledger = Timeline(100.0, 102.0, [first, in_vain]).settle(109.0, 4)
    assert segments(ledger) == {
        "prefill_compute_s": 2.0,
        "decode_steps_s": 3.0,
        "recovery_s": 4.0,
    }


MOMENT = st.none() | st.floats(0, 100)


@given(
    attempts=st.lists(
        st.builds(
            AttemptTimes,
            dispatched=st.floats(0, 100),
            started=MOMENT,
            first_token=MOMENT,
            last_token=MOMENT,
            admitted=MOMENT,
            kv_ready=MOMENT,
            transfer_s=st.floats(0, 100),
        ),
        max_size=4,
    ),
    delivered=st.floats(0, 100),
)
def test_no_order_of_events_breaks_the_sum(attempts, delivered: float) -> None:
    ledger = Timeline(0.0, delivered, attempts).settle(100.0, 3)
    values = [getattr(ledger, name) for name in (*BEFORE, *AFTER)]
    assert all(value >= 0 for value in values)
    assert sum(values) == pytest.approx(ledger.total_s, abs=1e-3)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([], {"router_queue_s": 9.0}),
        ([AttemptTimes(dispatched=101.0)], {"router_queue_s": 1.0, "prefill_queue_s": 8.0}),
        (
            [AttemptTimes(dispatched=101.0), AttemptTimes(dispatched=103.0, started=104.0)],
            {"router_queue_s": 3.0, "prefill_queue_s": 1.0, "prefill_compute_s": 5.0},
        ),
    ],
)
def test_a_request_without_a_token_has_its_time_where_it_got_to(attempts, expected) -> None:
    ledger = Timeline(100.0, None, attempts).settle(109.0, 0)
    assert segments(ledger) == expected
    assert ledger.ttft_s == ledger.total_s == 9.0
