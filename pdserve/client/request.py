"""What a program asks for, and the message made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias, TypedDict

from pdserve.errors import InvalidRequestError
from pdserve.rpc.v1 import router_pb2, types_pb2
from pdserve.sampling import MAX_COUNT

_MAX_SEED = 2**64 - 1
_MAX_TOKEN_ID = 2**32 - 1


class Priority(StrEnum):
    """Who goes first where requests wait."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Slo:
    """Objectives of a request, in milliseconds; None: the router's defaults.

    `hard`: the router refuses the request at once where it expects to miss one of them.
    """

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    hard: bool | None = None


# Text to continue, a conversation to answer, or token ids to continue.
Prompt: TypeAlias = str | Sequence[Message] | Sequence[int]


class SamplingOptions(TypedDict, total=False):
    """How tokens are chosen; what is left out, or None, is the router's default.

    `max_tokens`: as many as there is room for. `temperature`: 1; 0 is greedy. `top_k`: 0, which
    keeps all. `top_p`: 1. `min_p`: 0. `repetition_penalty`: 1. `presence_penalty`,
    `frequency_penalty`: 0. `logit_bias`: what is added to the logits of token ids. `seed`: drawn.
    `stop_token_ids`: end tokens besides the model's own, which `ignore_eos` disregards.
    `min_tokens`: nothing ends the output before. `logprobs`: report them, and those of so many most
    likely tokens.
    """

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    min_tokens: int | None
    logprobs: int | None


class Options(SamplingOptions, total=False):
    """What may be said of a request besides its prompt.

    `stop`: the texts that end the output, which they are no part of. `model`: the one that must
    answer. `priority`: at most what the API key allows. `request_id`: what logs and `explain` know
    the request by, minted by the router where it is left out. `timeout_s`: longest time until the
    answer is complete, retries included; the client's own where it is left out.
    """

    stop: str | Sequence[str]
    model: str
    slo: Slo
    priority: Priority
    request_id: str
    timeout_s: float


def generate_request(prompt: Prompt, options: Options) -> router_pb2.GenerateRequest:
    """The message that asks for it; the router checks what it says.

    Raises `InvalidRequestError` for numbers that it cannot hold, `TypeError` for values of a wrong
    type and options that there are not, and `UnicodeError` for text that is not UTF-8.
    """
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        raise TypeError(f"there is no option {min(unknown)!r}")
    stop = options.get("stop", ())
    request = router_pb2.GenerateRequest(
        model=options.get("model", ""),
        sampling=_sampling(options),
        stop=(stop,) if isinstance(stop, str) else stop,
        slo=_slo(options.get("slo", Slo())),
        priority=_priority(options.get("priority")),
    )
    request.ref.request_id = options.get("request_id", "")
    _set_prompt(request, prompt)
    return request


def _set_prompt(request: router_pb2.GenerateRequest, prompt: Prompt) -> None:
    if isinstance(prompt, str):
        request.prompt = prompt
        return
    messages = [each for each in prompt if isinstance(each, Message)]
    ids = [each for each in prompt if not isinstance(each, Message)]
    if messages and ids:
        raise TypeError("a prompt is a text, a list of Message, or a list of token ids")
    if messages:
        chat = [router_pb2.ChatMessage(role=each.role, content=each.content) for each in messages]
        request.chat.messages.extend(chat)
        return
    try:
        request.token_ids.CopyFrom(router_pb2.TokenIds(ids=ids))
    except ValueError as error:
        limit = f"[0, {_MAX_TOKEN_ID}]"
        text = f"a token id must lie in {limit}: {error}"
        raise InvalidRequestError(text, field="token_ids", limit=limit) from error


def _sampling(options: Options) -> types_pb2.Sampling:
    sampling = types_pb2.Sampling()
    given: Mapping[str, Any] = options
    for name in SamplingOptions.__annotations__.keys() & given.keys():
        if given[name] is not None:
            sampling.MergeFrom(_one_of_sampling(name, given[name]))
    return sampling


def _one_of_sampling(name: str, value: Any) -> types_pb2.Sampling:
    field: Any = {name: value}
    try:
        return types_pb2.Sampling(**field)
    except ValueError as error:
        limit = f"[0, {_MAX_SEED if name == 'seed' else MAX_COUNT}]"
        text = f"{name} is {value}; it must lie in {limit}"
        raise InvalidRequestError(text, field=name, limit=limit) from error


def _slo(slo: Slo) -> types_pb2.Slo:
    return types_pb2.Slo(ttft_ms=slo.ttft_ms, tpot_ms=slo.tpot_ms, hard=slo.hard)


def _priority(priority: Priority | None) -> types_pb2.Priority.ValueType:
    if priority is None:
        return types_pb2.PRIORITY_UNSPECIFIED
    if priority not in list(Priority):
        limit = "|".join(Priority)
        text = f"priority is {priority!r}; it must be one of {limit}"
        raise InvalidRequestError(text, field="priority", limit=limit)
    return types_pb2.Priority.Value(f"PRIORITY_{priority.upper()}")
