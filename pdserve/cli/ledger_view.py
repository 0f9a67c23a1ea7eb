"""The ledger of a request as tables: where its time went, and what was decided."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pdserve.rpc.v1 import router_pb2, types_pb2

_BAR_WIDTH = 24
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
_REASONS = {
    types_pb2.FINISH_REASON_STOP: "stop",
    types_pb2.FINISH_REASON_LENGTH: "length",
}


def explanation(finished: router_pb2.Finished) -> RenderableType:
    """Ledger, attempts and a line of totals."""
    return Group(_segments(finished.ledger), _attempts(finished), _totals(finished))


def _segments(ledger: types_pb2.Ledger) -> Table:
    table = Table(title="Ledger", title_justify="left")
    table.add_column("phase")
    table.add_column("ms", justify="right")
    table.add_column("share of the total")
    _add_rows(table, ledger, _BEFORE_FIRST_TOKEN)
    table.add_row("TTFT", _ms(ledger.ttft_s), "", style="bold", end_section=True)
    _add_rows(table, ledger, _AFTER_FIRST_TOKEN)
    table.add_row("total", _ms(ledger.total_s), "", style="bold")
    return table


def _add_rows(
    table: Table, ledger: types_pb2.Ledger, segments: tuple[tuple[str, str], ...]
) -> None:
    for label, field in segments:
        seconds: float = getattr(ledger, field)
        share = seconds / ledger.total_s if ledger.total_s else 0.0
        table.add_row(label, _ms(seconds), "█" * round(share * _BAR_WIDTH))


def _attempts(finished: router_pb2.Finished) -> Text:
    text = Text("Placement\n", style="italic")
    for attempt in finished.attempts:
        text.append(f"attempt {attempt.number}: {_where(attempt)}", style="not italic")
        text.append(f"\n  why: {attempt.reason}\n", style="not italic dim")
        if attempt.failure:
            text.append(f"  failed: {attempt.failure}\n", style="not italic red")
    return text


def _where(attempt: types_pb2.Attempt) -> str:
    if not attempt.prefill:
        return f"{attempt.rung}, both phases on {attempt.decode}"
    return f"{attempt.rung}, prefill on {attempt.prefill}, decode on {attempt.decode}"


def _totals(finished: router_pb2.Finished) -> Text:
    ledger = finished.ledger
    return Text(
        f"{finished.prompt_tokens} prompt tokens ({finished.cached_tokens} cached), "
        f"{finished.output_tokens} output tokens, ended by {_end(finished)}; "
        f"TPOT {_ms(ledger.tpot_s)} ms; "
        f"KV {ledger.transfer_bytes / 1e6:.1f} MB in {_ms(ledger.transfer_wall_s)} ms"
    )


def _end(finished: router_pb2.Finished) -> str:
    if finished.stop:
        return f"the stop string {finished.stop!r}"
    return _REASONS.get(finished.reason, "an unknown reason")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
