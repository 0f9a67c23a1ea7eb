"""Who is better, and whether that is more than chance."""

import math

import pytest
from loads import record, run_of

from pdserve.bench.comparison import check_rounds, compare, rounds_order
from pdserve.bench.summary import Summary, summarize
from pdserve.errors import ConfigError
from pdserve.planner.slo import Slo


def seen(ttft_s: float, target: str = "t") -> Summary:
    records = [record(index, ttft_s=ttft_s, e2e_s=ttft_s + 0.03) for index in range(5)]
    return summarize(1.0, [run_of(records, target)], Slo(ttft_s=0.1))


def compared(a: list[float], b: list[float]) -> dict:
    measures = compare([seen(each) for each in a], [seen(each) for each in b])
    return {each.measure.name: each for each in measures}


def test_a_b_b_a() -> None:
    order = [which for number in range(4) for which in rounds_order(number)]
    assert order == [0, 1, 1, 0, 0, 1, 1, 0]


def test_a_clear_difference_is_found_with_its_size() -> None:
    found = compared([0.050, 0.052, 0.049, 0.051], [0.100, 0.105, 0.097, 0.102])
    ttft = found["TTFT p50"]
    assert ttft.better == "A"
    assert ttft.middle == pytest.approx(2.0, rel=0.02)
    assert 1.9 < ttft.low < ttft.middle < ttft.high < 2.1
    assert (ttft.a, ttft.b) == (pytest.approx(0.0505), pytest.approx(0.101))
    assert found["TPOT p50"].better == ""
    assert found["attainment"].better == ""
    assert found["attainment"].middle == -0.5  # two of four rounds of B miss the SLO


def test_the_interval_is_students() -> None:
    found = compared([1.0, 1.0, 1.0], [1.1, 1.2, 1.3])["TTFT p50"]
    logs = [math.log(each) for each in (1.1, 1.2, 1.3)]
    mean = sum(logs) / 3
    deviation = math.sqrt(sum((each - mean) ** 2 for each in logs) / 2)
    assert found.high == pytest.approx(math.exp(mean + 4.303 * deviation / math.sqrt(3)))


def test_noise_is_nobodys_merit() -> None:
    found = compared([0.050, 0.070, 0.040, 0.060], [0.060, 0.050, 0.065, 0.045])
    assert found["TTFT p50"].better == ""
    assert found["TTFT p50"].low < 1 < found["TTFT p50"].high


def test_more_is_better_of_throughput_and_attainment() -> None:
    slow = [2.0, 2.02, 2.01, 2.03]
    found = compared(slow, [0.05] * 4)
    assert found["output tokens/s"].better == "B"
    assert found["attainment"].better == "B"
    assert found["attainment"].middle == 1.0


def test_a_target_that_never_answers_is_compared_where_it_can_be() -> None:
    dead = summarize(1.0, [run_of([record(0, "failed"), record(1, "failed")])], Slo(ttft_s=0.1))
    found = {each.measure.name: each for each in compare([seen(0.05)] * 3, [dead] * 3)}
    assert set(found) == {"attainment"}
    assert found["attainment"].better == "A"
    assert compare([seen(0.05)], [seen(0.05)]) == []


@pytest.mark.parametrize("rounds", [1, 0, 31])
def test_rounds_that_tell_nothing(rounds: int) -> None:
    with pytest.raises(ConfigError, match=r"rounds is .*; it must lie in \[2, 30\]"):
        check_rounds(rounds)
