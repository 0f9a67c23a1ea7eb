"""Where the time of a request went, and where it was placed, for people to read."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pdserve.client import Answer, Attempt, Ledger, Usage

_BAR_WIDTH = 40
_BEFORE_FIRST_TOKEN = (
    ("router queue", "router_queue_s"),
    ("prefill queue", "prefill_queue_s"),
    ("prefill compute", "prefill_compute_s"),
    ("first token out", "first_token_out_s"),
)
_AFTER_FIRST_TOKEN = (
    ("decode admission", "decode_admission_s"),
    ("transfer wait", "transfer_wait_s"),
    ("transfer", "transfer_s"),
    ("decode steps", "decode_steps_s"),
    ("recovery", "recovery_s"),
)


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch of the request's time, from its receipt on."""

    label: str
    begin_s: float
    end_s: float

    @property
    def ms(self) -> str:
        """The length, between ends that are rounded: what adjoins adds up as it is shown."""
        return f"{(round(self.end_s * 1e4) - round(self.begin_s * 1e4)) / 10:.1f}"

    def bar(self, total_s: float) -> str:
        """Where it lies in the whole."""
        scale = _BAR_WIDTH / total_s if total_s else 0.0
        begin, end = round(self.begin_s * scale), round(self.end_s * scale)
        if end > begin:
            return " " * begin + "█" * (end - begin)
        return " " * min(begin, _BAR_WIDTH - 1) + "▏" if self.end_s > self.begin_s else ""


def answer_view(answer: Answer) -> RenderableType:
    """The ledger, the attempts, and what there is in all."""
    return Group(
        ledger_table(answer.ledger, tokens=answer.usage.output_tokens, seen_s=answer.total_s),
        Text("Placement", style="italic"),
        *map(attempt_text, answer.attempts),
        _totals(answer),
        Text(f"request {answer.request_id}; seen from here: TTFT {milliseconds(answer.ttft_s)} ms"),
    )


def ledger_table(ledger: Ledger, *, tokens: int, seen_s: float | None = None) -> Table:
    """A row a segment, each beginning where the one before ends; sums below those that they sum.

    `tokens` is how many came, `seen_s` the total time that the client saw, with what passed outside
    the router.
    """
    table = Table(title="Ledger", title_justify="left")
    table.add_column("segment")
    table.add_column("ms", justify="right")
    table.add_column("from the receipt to the end", min_width=_BAR_WIDTH)
    before = list(_spans(ledger, _BEFORE_FIRST_TOKEN, 0.0))
    ttft = _Span("TTFT" if tokens else "no first token", 0.0, before[-1].end_s)
    after = list(_spans(ledger, _AFTER_FIRST_TOKEN, ttft.end_s))
    total = _Span("total", 0.0, after[-1].end_s)
    sums = [(before, ttft), (after, total)]
    if seen_s is not None:
        seen = _Span("seen from here", 0.0, max(seen_s, total.end_s))
        sums.append(([_Span("outside the router", total.end_s, seen.end_s)], seen))
    whole_s = sums[-1][1].end_s
    for spans, their_sum in sums:
        for span in spans:
            table.add_row(f"  {span.label}", span.ms, span.bar(whole_s))
        bar = their_sum.bar(whole_s)
        table.add_row(their_sum.label, their_sum.ms, bar, style="bold", end_section=True)
    return table


def attempt_text(attempt: Attempt) -> Text:
    """Where an attempt was placed, why, and what became of it."""
    text = Text(f"attempt {attempt.number}: {_where(attempt)}")
    if attempt.elapsed_s:
        text.append(f", {milliseconds(attempt.elapsed_s)} ms")
    text.append(f"\n  why: {attempt.reason}{_effort(attempt)}", style="dim")
    if attempt.failure:
        text.append(f"\n  failed: {attempt.failure}", style="red")
    return text


def usage_text(usage: Usage) -> str:
    """The tokens of a request."""
    return (
        f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached), "
        f"{usage.output_tokens} output tokens"
    )


def transfer_text(ledger: Ledger) -> str:
    """What was handed from prefill to decode."""
    megabytes = f"{ledger.transfer_bytes / 1e6:.1f}"
    return f"KV {megabytes} MB in {milliseconds(ledger.transfer_wall_s)} ms"


def milliseconds(seconds: float) -> str:
    """A time as tables show it."""
    return f"{seconds * 1000:.1f}"


def _spans(
    ledger: Ledger, segments: tuple[tuple[str, str], ...], begin_s: float
) -> Iterator[_Span]:
    for label, field in segments:
        end_s = begin_s + getattr(ledger, field)
        yield _Span(label, begin_s, end_s)
        begin_s = end_s


def _where(attempt: Attempt) -> str:
    if not attempt.prefill:
        return f"{attempt.rung}, both phases on {attempt.decode}"
    return f"{attempt.rung}, prefill on {attempt.prefill}, decode on {attempt.decode}"


def _effort(attempt: Attempt) -> str:
    if not attempt.considered:
        return ""
    placements = "1 placement" if attempt.considered == 1 else f"{attempt.considered} placements"
    return f" ({placements} weighed in {milliseconds(attempt.decision_s)} ms)"


def _totals(answer: Answer) -> Text:
    end = f"the stop string {answer.stop!r}" if answer.stop else answer.finish_reason
    return Text(
        f"{usage_text(answer.usage)}, ended by {end}; "
        f"TPOT {milliseconds(answer.ledger.tpot_s)} ms; {transfer_text(answer.ledger)}"
    )
