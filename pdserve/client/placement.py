"""Where a request was placed and why, and where its time went."""

from collections.abc import Iterable
from dataclasses import dataclass

from pdserve.client.records import record_of
from pdserve.rpc.v1 import types_pb2


@dataclass(frozen=True, slots=True)
class ScoredPlacement:
    """What the placer expected of one placement, from the decision on.

    `rung` is "remote" (prefill on one instance, decode on another) or "local" (both on `decode`).
    `queue_s` and `compute_s` add up to `ttft_s`; `handoff_s` runs from the first token until decode
    can go on. `violation` says by how much the objectives would be missed, as shares of them.
    `verdict` says in words why it is, or is not, the chosen one.
    """

    rung: str
    prefill: str
    decode: str
    queue_s: float
    compute_s: float
    ttft_s: float
    handoff_s: float
    bandwidth_bytes_per_s: float
    tpot_s: float
    violation: float
    cached_tokens: int
    verdict: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One placement of a request, `elapsed_s` long. `failure` is empty unless it failed.

    `candidates` are the best of the `considered` placements, the chosen one first; to weigh them
    took `decision_s`.
    """

    number: int
    rung: str
    prefill: str
    decode: str
    reason: str
    failure: str
    cached_tokens: int
    candidates: tuple[ScoredPlacement, ...]
    considered: int
    decision_s: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where the time of a request went, on the router's clock.

    The first four segments add up to `ttft_s`, all nine to `total_s`. The transfer's own figures,
    `transfer_bytes` and `transfer_wall_s`, count what the first token hid as well.
    """

    router_queue_s: float
    prefill_queue_s: float
    prefill_compute_s: float
    first_token_out_s: float
    decode_admission_s: float
    transfer_wait_s: float
    transfer_s: float
    decode_steps_s: float
    recovery_s: float
    ttft_s: float
    total_s: float
    tpot_s: float
    transfer_bytes: int
    transfer_wall_s: float


def scored_of(messages: Iterable[types_pb2.ScoredPlacement]) -> tuple[ScoredPlacement, ...]:
    """The placements that messages tell of."""
    return tuple(record_of(ScoredPlacement, each) for each in messages)


def attempt_of(message: types_pb2.Attempt) -> Attempt:
    """The attempt that a message tells of."""
    return record_of(Attempt, message, {"candidates": scored_of(message.candidates)})


def ledger_of(message: types_pb2.Ledger) -> Ledger:
    """The ledger in a message."""
    return record_of(Ledger, message)
