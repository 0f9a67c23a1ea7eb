"""Why one request went as it did."""

from dataclasses import dataclass
from typing import Any, Literal

from pdserve.client.answer import Usage
from pdserve.client.placement import (
    Attempt,
    Ledger,
    ScoredPlacement,
    attempt_of,
    ledger_of,
    scored_of,
)
from pdserve.client.records import record_of
from pdserve.client.request import Priority, Slo
from pdserve.rpc.v1 import router_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class Failure:
    """The error that ended a request; `reason` is stable (see `pdserve.errors`)."""

    reason: str
    text: str
    field: str
    limit: str
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `router` knows of a request that runs, or has lately ended.

    `age_s` is since it was received. `slo` and `priority` are those that applied. `ledger` is None
    while it runs, `failure` unless it failed or was refused. `weighed` are the best placements for
    a request that was refused all of them.
    """

    request_id: str
    router: str
    state: Literal["running", "finished", "failed", "refused", "cancelled"]
    age_s: float
    slo: Slo
    priority: Priority
    usage: Usage
    attempts: tuple[Attempt, ...]
    ledger: Ledger | None
    failure: Failure | None
    weighed: tuple[ScoredPlacement, ...] = ()


def explanation_of(message: router_pb2.ExplainResponse) -> Explanation:
    """The explanation in a response."""
    given = {
        "slo": _slo_of(message.slo),
        "priority": _priority_of(message.priority),
        "usage": record_of(Usage, message),
        "attempts": tuple(attempt_of(each) for each in message.attempts),
        "ledger": ledger_of(message.ledger) if message.HasField("ledger") else None,
        "failure": _failure_of(message) if message.HasField("error") else None,
        "weighed": scored_of(message.weighed),
    }
    return record_of(Explanation, message, given)


def _slo_of(message: types_pb2.Slo) -> Slo:
    values: dict[str, Any] = {field.name: value for field, value in message.ListFields()}
    return Slo(**values)


def _priority_of(priority: types_pb2.Priority.ValueType) -> Priority:
    if priority == types_pb2.PRIORITY_UNSPECIFIED:
        return Priority.NORMAL
    return Priority(types_pb2.Priority.Name(priority).removeprefix("PRIORITY_").lower())


def _failure_of(message: router_pb2.ExplainResponse) -> Failure:
    return record_of(Failure, message.error, {"text": message.error_text})
