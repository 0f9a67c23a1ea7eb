"""What `pdserve explain` and the links of `pdserve status` show, against a scripted router."""

import io
import json
import re

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scripted_router import FINISHED, ScriptedRouter, listening

from pdserve.cli.explanation_view import explanation_view
from pdserve.cli.ledger_view import ledger_table
from pdserve.cli.main import main
from pdserve.client import Ledger
from pdserve.client.explanation import explanation_of
from pdserve.client.placement import ledger_of
from pdserve.errors import UnknownRequestError
from pdserve.rpc.errors import DETAIL_KEY, error_detail
from pdserve.rpc.v1 import router_pb2, types_pb2

CHOSEN = types_pb2.ScoredPlacement(
    rung="remote",
    prefill="p-1",
    decode="d-1",
    queue_s=0.001,
    compute_s=0.030,
    ttft_s=0.031,
    handoff_s=0.004,
    bandwidth_bytes_per_s=2.5e9,
    tpot_s=0.025,
    cached_tokens=16,
    verdict="least violation",
)
OTHER = types_pb2.ScoredPlacement(
    rung="local", decode="d-0", ttft_s=0.5, violation=1.5, verdict="misses TTFT"
)
FINISHED_ONE = router_pb2.ExplainResponse(
    request_id="abc",
    state="finished",
    age_s=12,
    router="router-7700",
    slo=types_pb2.Slo(ttft_ms=50, tpot_ms=20, hard=True),
    priority=types_pb2.PRIORITY_HIGH,
    prompt_tokens=31,
    output_tokens=7,
    cached_tokens=16,
    ledger=FINISHED.ledger,
    attempts=[
        types_pb2.Attempt(number=1, rung="remote", prefill="p-0", decode="d-0", failure="died"),
        types_pb2.Attempt(
            number=2,
            rung="remote",
            prefill="p-1",
            decode="d-1",
            reason="the rest was worse",
            candidates=[CHOSEN, OTHER],
            considered=9,
            decision_s=0.0002,
            elapsed_s=0.2,
        ),
    ],
)
REFUSED_ONE = router_pb2.ExplainResponse(
    request_id="abc",
    state="refused",
    slo=types_pb2.Slo(ttft_ms=50),
    ledger=types_pb2.Ledger(router_queue_s=0.5, ttft_s=0.5, total_s=0.5),
    error=types_pb2.ErrorDetail(reason="overloaded"),
    error_text="[no] rung can meet it",
)


class Explaining(ScriptedRouter):
    """Knows one request, and two links."""

    def Explain(self, request, context):  # noqa: N802
        if request.request_id == "abc":
            return FINISHED_ONE
        error = UnknownRequestError(f"request {request.request_id!r} is not known here")
        context.set_trailing_metadata(((DETAIL_KEY, error_detail(error).SerializeToString()),))
        context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        raise AssertionError("abort raises")

    def GetCluster(self, request, context):  # noqa: N802
        cluster = super().GetCluster(request, context)
        cluster.queued_requests = 2
        cluster.links.add(
            prefill="prefill-0",
            decode="decode-0",
            distance="rack",
            bandwidth_bytes_per_s=1.234e9,
            transfers=17,
            age_s=3,
            breaker="half_open",
        )
        cluster.links.add(
            prefill="prefill-0", decode="decode-1", distance="far", bandwidth_bytes_per_s=1e9
        )
        return cluster


def lines_of(text: str) -> list[list[str]]:
    return [re.sub(r"[^\w.%()+-]", " ", line).split() for line in text.splitlines()]


def test_explain_shows_the_decision_beside_what_came_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with listening(Explaining()) as router:
        assert main(["explain", "abc", f"--router={router.address}"]) == 0
    shown = capsys.readouterr().out
    for words in (
        ("request abc: finished", "12.0 s ago", "router-7700", "priority high"),
        ("hard objectives: TTFT 50 ms met (43.5 ms), TPOT 20 ms missed (26.0 ms)",),
        ("attempt 1: remote, prefill on p-0, decode on d-0",),
        ("failed: died",),
        ("attempt 2:", "p-1", "200.0 ms"),
        ("why: the rest was worse (9 placements weighed in 0.2 ms)",),
        ("▸", "p-1 → d-1", "30.0", "31.0", "4.0", "25.0", "16", "2.5", "least violation"),
        ("local on d-0", "500.0", "150%", "misses TTFT"),
    ):
        assert any(all(word in line for word in words) for line in shown.splitlines()), words
    table = lines_of(shown)
    assert ["compute", "30.0", "40.0", "+10.0"] in table
    assert ["TTFT", "31.0", "42.5", "+11.5"] in table
    assert ["hand-off", "4.0", "6.0", "+2.0"] in table
    assert ["TPOT", "25.0", "26.0", "+1.0"] in table


def test_explain_is_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(Explaining()) as router:
        assert main(["explain", "abc", "--json", f"--router={router.address}"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["priority"]) == ("finished", "high")
    assert document["attempts"][1]["candidates"][0]["verdict"] == "least violation"
    assert document["failure"] is None


def test_a_request_that_is_not_known_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(Explaining()) as router:
        assert main(["explain", "xyz", f"--router={router.address}"]) == 1
    assert capsys.readouterr().err == "error: request 'xyz' is not known here\n"


def shown(renderable: object) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_a_refusal_has_met_nothing_and_says_why() -> None:
    text = shown(explanation_view(explanation_of(REFUSED_ONE)))
    assert "overloaded: [no] rung can meet it" in text
    assert "TTFT 50 ms (nothing came yet)" in text
    assert "it was never placed" in text
    assert "no first token" in text


def test_a_request_that_runs_has_no_ledger() -> None:
    running = router_pb2.ExplainResponse(state="running", attempts=FINISHED_ONE.attempts)
    text = shown(explanation_view(explanation_of(running)))
    assert "p-1 → d-1" in text
    assert "Ledger" not in text
    assert "no objectives" in text


def test_a_request_that_recovered_is_no_measure_of_a_prediction() -> None:
    recovered = router_pb2.ExplainResponse()
    recovered.CopyFrom(FINISHED_ONE)
    recovered.ledger.recovery_s = 0.1
    assert "Predicted" not in shown(explanation_view(explanation_of(recovered)))


SEGMENT = st.floats(0, 100, width=32)


@given(st.lists(SEGMENT, min_size=9, max_size=9), st.floats(0, 10))
def test_what_is_shown_adds_up_as_it_is_shown(segments: list[float], outside_s: float) -> None:
    ledger = Ledger(*segments, sum(segments[:4]), sum(segments), 0.0, 0, 0.0)
    table = ledger_table(ledger, tokens=5, seen_s=sum(segments) + outside_s)
    cells = list(table.columns[1].cells)
    tenths = [round(float(str(cell)) * 10) for cell in cells]
    before, ttft, after, total, outside, seen = (
        tenths[:4],
        tenths[4],
        tenths[5:10],
        tenths[10],
        tenths[11],
        tenths[12],
    )
    assert sum(before) == ttft
    assert ttft + sum(after) == total
    assert total + outside == seen


def test_bars_lie_end_to_end() -> None:
    table = ledger_table(ledger_of(FINISHED.ledger), tokens=7, seen_s=0.1996)
    bars = [str(bar) for bar in table.columns[2].cells]
    blank = [bar.count(" ") for bar in bars]
    assert blank == [0, 0, 1, 9, 0, 9, 9, 9, 10, 0, 0, 39, 0]
    assert bars[3].strip() == "▏"  # too short for a block, and there
    assert bars[9] == ""  # there was no recovery
    assert max(map(len, bars)) == 40


def test_status_shows_links_and_what_is_queued(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(Explaining()) as router:
        assert main(["status", f"--router={router.address}"]) == 0
    text = capsys.readouterr().out
    table = [line.split() for line in text.splitlines()]
    first = ["prefill-0", "decode-0", "rack", "1.23", "17", "3", "s", "ago", "half", "open"]
    assert first in table
    assert ["prefill-0", "decode-1", "far", "(1)", "0", "-"] in table
    assert "3 requests running, 2 queued" in text


def test_generate_says_how_urgent_it_is() -> None:
    words = ["--ttft-ms=200", "--hard", "--priority=high", "--request-id=mine"]
    with listening(ScriptedRouter()) as router:
        assert main(["generate", "Hi", f"--router={router.address}", *words]) == 0
    (request,) = router.requests
    assert (request.slo.ttft_ms, request.slo.hard) == (200, True)
    assert not request.slo.HasField("tpot_ms")
    assert (request.priority, request.ref.request_id) == (types_pb2.PRIORITY_HIGH, "mine")


def test_tls_files_that_are_not_there_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--tls-ca=/no/such/file"]) == 2
    assert "tls_ca: /no/such/file" in capsys.readouterr().err
