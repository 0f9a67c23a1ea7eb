"""An explanation of a request, for people to read."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pdserve.cli.ledger_view import (
    attempt_text,
    ledger_table,
    milliseconds,
    transfer_text,
    usage_text,
)
from pdserve.client import Explanation, Ledger, ScoredPlacement

_STATES = {"finished": "green", "running": "cyan"}
_NUMBERS = ("queue", "compute", "TTFT", "hand-off", "TPOT", "missed by", "cached", "GB/s")
# Of the placement, from the decision on; the ledger's segments that were predicted.
_PREDICTED = {
    "queue": ("queue_s", ("prefill_queue_s",)),
    "compute": ("compute_s", ("prefill_compute_s",)),
    "TTFT": ("ttft_s", ("prefill_queue_s", "prefill_compute_s", "first_token_out_s")),
    "hand-off": ("handoff_s", ("decode_admission_s", "transfer_wait_s", "transfer_s")),
    "TPOT": ("tpot_s", ("tpot_s",)),
}


def explanation_view(explanation: Explanation) -> RenderableType:
    """State, objectives, attempts with their candidates, prediction and observation, ledger."""
    return Group(*_parts(explanation))


def _parts(explanation: Explanation) -> Iterator[RenderableType]:
    yield _head(explanation)
    yield _objectives(explanation)
    yield Text("Placement", style="italic")
    if not explanation.attempts:
        yield Text("it was never placed")
    for attempt in explanation.attempts:
        yield attempt_text(attempt)
        if attempt.candidates:
            yield _candidates(attempt.candidates, "▸ was chosen", chosen=True)
    if explanation.weighed:
        yield _candidates(explanation.weighed, "all of them were refused")
    if explanation.ledger is None:
        return
    if chosen := _comparable(explanation):
        yield _prediction(chosen, explanation.ledger)
    yield ledger_table(explanation.ledger, tokens=explanation.usage.output_tokens)
    if explanation.ledger.transfer_bytes:
        yield Text(transfer_text(explanation.ledger))


def _head(explanation: Explanation) -> Text:
    text = Text(f"request {explanation.request_id}: ")
    text.append(explanation.state, style=_STATES.get(explanation.state, "red"))
    text.append(
        f", received {explanation.age_s:.1f} s ago by {explanation.router}, "
        f"priority {explanation.priority}\n{usage_text(explanation.usage)}"
    )
    if failure := explanation.failure:
        text.append(f"\n{failure.reason}: {failure.text}", style="red")
    return text


def _objectives(explanation: Explanation) -> Text:
    slo, ledger = explanation.slo, explanation.ledger
    objectives = []
    if slo.ttft_ms is not None:
        objectives.append(("TTFT", slo.ttft_ms, ledger.ttft_s if ledger else None))
    if slo.tpot_ms is not None:
        objectives.append(("TPOT", slo.tpot_ms, ledger.tpot_s if ledger else None))
    if not objectives:
        return Text("no objectives")
    text = Text("hard objectives: " if slo.hard else "objectives: ")
    for place, (name, limit_ms, seconds) in enumerate(objectives):
        text.append(f"{', ' if place else ''}{name} {limit_ms:g} ms ")
        # A request without a token has met nothing.
        came = seconds is not None and explanation.usage.output_tokens > 0
        text.append(*_verdict(limit_ms, seconds if came else None))
    return text


def _verdict(limit_ms: float, seconds: float | None) -> tuple[str, str]:
    """In words, and the style of them."""
    if seconds is None:
        return "(nothing came yet)", "yellow"
    words = f"({milliseconds(seconds)} ms)"
    return (f"met {words}", "green") if seconds * 1e3 <= limit_ms else (f"missed {words}", "red")


def _candidates(
    candidates: Sequence[ScoredPlacement], outcome: str, *, chosen: bool = False
) -> Table:
    """`chosen`: the first was taken."""
    caption = f"ms, from the decision on; {outcome}"
    table = Table(box=SIMPLE, pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("")
    table.add_column("prefill → decode", no_wrap=True)
    for name in _NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for place, candidate in enumerate(candidates):
        taken = chosen and place == 0
        table.add_row("▸" if taken else "", *_cells(candidate), style="bold" if taken else "")
    return table


def _cells(candidate: ScoredPlacement) -> tuple[str, ...]:
    remote = candidate.prefill != ""
    return (
        f"{candidate.prefill} → {candidate.decode}" if remote else f"local on {candidate.decode}",
        milliseconds(candidate.queue_s),
        milliseconds(candidate.compute_s),
        milliseconds(candidate.ttft_s),
        milliseconds(candidate.handoff_s) if remote else "-",
        milliseconds(candidate.tpot_s),
        f"{candidate.violation:.0%}" if candidate.violation else "-",
        str(candidate.cached_tokens),
        f"{candidate.bandwidth_bytes_per_s / 1e9:.3g}" if remote else "-",
        candidate.verdict,
    )


def _comparable(explanation: Explanation) -> ScoredPlacement | None:
    """The placement whose prediction the ledger can be held against.

    Segments from the dispatch on belong to the last attempt alone, unless one before it had brought
    tokens already; what the ledger then has of both is no measure of either.
    """
    if explanation.state != "finished" or explanation.ledger is None:
        return None
    if explanation.ledger.recovery_s or not explanation.attempts[-1].candidates:
        return None
    return explanation.attempts[-1].candidates[0]


def _prediction(chosen: ScoredPlacement, ledger: Ledger) -> Table:
    table = Table(title="Predicted and observed, ms", title_justify="left", box=SIMPLE)
    table.add_column("")
    for name in ("predicted", "observed", "difference"):
        table.add_column(name, justify="right")
    for label, (predicted_field, segments) in _PREDICTED.items():
        predicted_s: float = getattr(chosen, predicted_field)
        observed_s = sum(getattr(ledger, segment) for segment in segments)
        difference = f"{(observed_s - predicted_s) * 1e3:+.1f}"
        table.add_row(label, milliseconds(predicted_s), milliseconds(observed_s), difference)
    return table
