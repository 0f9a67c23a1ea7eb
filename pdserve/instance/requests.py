"""From a request message to what the engine takes: every limit is checked here."""

import math
import time
from dataclasses import dataclass

from pdserve.engine.engine import EngineRequest
from pdserve.errors import InvalidRequestError
from pdserve.rpc.convert import sampling_from_proto
from pdserve.rpc.v1 import decode_pb2, prefill_pb2, types_pb2
from pdserve.scheduling.sequence import Work
from pdserve.scheduling.urgency import Priority, Urgency

_PRIORITIES = {types_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL} | {
    types_pb2.Priority.Value(f"PRIORITY_{priority.name}"): priority for priority in Priority
}


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may ask of an instance."""

    vocab_size: int
    max_model_len: int


def request_key(ref: types_pb2.RequestRef) -> str:
    """The name of one attempt of one request inside an instance."""
    return f"{ref.request_id}/{ref.attempt}"


def engine_request(
    message: prefill_pb2.PrefillRequest | decode_pb2.DecodeRequest,
    work: Work,
    limits: RequestLimits,
) -> EngineRequest:
    """The engine's request; raises `InvalidRequestError` naming the field that is wrong."""
    if not message.ref.request_id:
        raise InvalidRequestError("ref.request_id is empty", field="ref.request_id")
    prompt, output = tuple(message.prompt_token_ids), tuple(message.output_token_ids)
    if not prompt:
        raise InvalidRequestError("prompt_token_ids is empty", field="prompt_token_ids")
    for field, ids in (("prompt_token_ids", prompt), ("output_token_ids", output)):
        if ids and max(ids) >= limits.vocab_size:
            raise InvalidRequestError(
                f"{field} has token id {max(ids)}; the vocabulary has {limits.vocab_size}",
                field=field,
                limit=str(limits.vocab_size - 1),
            )
    room = limits.max_model_len - len(prompt) - len(output)
    if room < 1:
        raise InvalidRequestError(
            f"prompt and output are {len(prompt) + len(output)} tokens; "
            f"with one more they must fit in {limits.max_model_len}",
            field="prompt_token_ids",
            limit=str(limits.max_model_len),
        )
    sampling = sampling_from_proto(
        message.sampling, default_seed=0, default_max_tokens=room + len(output)
    )
    sampling.validate(limits.vocab_size)
    if sampling.max_tokens <= len(output):
        raise InvalidRequestError(
            f"max_tokens is {sampling.max_tokens} and {len(output)} are generated already",
            field="sampling.max_tokens",
            limit=str(sampling.max_tokens),
        )
    return EngineRequest(
        request_key(message.ref),
        prompt,
        output,
        sampling,
        work,
        urgency=_urgency(message.urgency),
        tpot_limit_s=_tpot_limit_s(message.slo),
    )


def _urgency(message: types_pb2.Urgency) -> Urgency:
    """The message on this process's monotonic clock."""
    if message.priority not in _PRIORITIES:
        raise InvalidRequestError(
            f"urgency.priority is {message.priority}, which is no priority",
            field="urgency.priority",
        )
    if not math.isfinite(message.due_in_s):
        raise InvalidRequestError(
            f"urgency.due_in_s is {message.due_in_s}; it must be finite", field="urgency.due_in_s"
        )
    due_s = time.monotonic() + message.due_in_s if message.HasField("due_in_s") else None
    return Urgency(_PRIORITIES[message.priority], due_s)


def _tpot_limit_s(slo: types_pb2.Slo) -> float:
    """The objective in seconds; 0 without one."""
    if not 0 <= slo.tpot_ms < math.inf:  # NaN fails
        raise InvalidRequestError(
            f"slo.tpot_ms is {slo.tpot_ms}; it must be finite and not negative",
            field="slo.tpot_ms",
        )
    return slo.tpot_ms / 1000
