"""The edge: turns a client's request into a `Generation` or says which field is wrong."""

import asyncio
import re
import secrets

from pdserve.config import RouterConfig
from pdserve.errors import InvalidRequestError
from pdserve.rpc.convert import sampling_from_proto
from pdserve.rpc.v1 import router_pb2, types_pb2
from pdserve.sampling import SamplingParams
from pdserve.text.chat_template import Message
from pdserve.text.stop import StopStrings
from services.router.admission.objectives import Objectives, resolve_priority
from services.router.generation import Generation
from services.router.model import ServedModel

# Longer texts are tokenized beside the event loop, which they would hold up.
_SHORT_TEXT_CHARS = 4096
# The longest tokens of common vocabularies are runs of about so many blanks: text with more
# characters a token of context cannot fit, and need not be tokenized to know it.
_MAX_CHARS_PER_TOKEN = 128
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


def request_id_of(request: router_pb2.GenerateRequest) -> str:
    """The client's request id, or a new one. Raises `InvalidRequestError`."""
    request_id = request.ref.request_id or secrets.token_hex(8)
    if not _REQUEST_ID.fullmatch(request_id):
        limit = "1 to 128 printable ASCII characters without blanks"
        raise InvalidRequestError(
            f"ref.request_id must be {limit}", field="ref.request_id", limit=limit
        )
    return request_id


class Intake:
    """Validates every field of a request and tokenizes its input, once."""

    def __init__(self, config: RouterConfig, model: ServedModel) -> None:
        self._objectives = Objectives(config)
        self._model = model

    async def accept(
        self,
        request: router_pb2.GenerateRequest,
        request_id: str,
        context_limit: int,
        highest: types_pb2.Priority.ValueType,
    ) -> Generation:
        """The request in tokens, when prompt and output fit in `context_limit` tokens.

        Its class is at most `highest`.

        Raises `UnknownModelError`, or `InvalidRequestError` naming the field and its limit.
        """
        self._model.check_name(request.model)
        slo = self._objectives.resolve(request.slo)
        priority = resolve_priority(request.priority, highest)
        StopStrings(request.stop)  # refuses bad ones
        field = _input_field(request)
        prompt = await self._tokenize(request, field, context_limit)
        _check_prompt(prompt, field, context_limit)
        sampling = sampling_from_proto(
            request.sampling,
            default_seed=secrets.randbits(64),
            default_max_tokens=context_limit - len(prompt),
        )
        sampling.validate(self._model.vocab_size)
        _check_room(len(prompt), sampling.max_tokens, context_limit)
        return Generation(
            request_id=request_id,
            run_id=f"{request_id}.{secrets.token_hex(4)}",
            prompt_token_ids=prompt,
            sampling=sampling,
            slo=slo,
            priority=priority,
            stops=tuple(request.stop),
            continues_prompt=not request.HasField("chat"),
            end_token_ids=self._end_token_ids(sampling),
        )

    async def _tokenize(
        self, request: router_pb2.GenerateRequest, field: str, context_limit: int
    ) -> list[int]:
        if request.HasField("token_ids"):
            return self._checked_ids(request.token_ids)
        chars = len(request.prompt) + sum(len(each.content) for each in request.chat.messages)
        _check_chars(field, chars, context_limit)
        if chars <= _SHORT_TEXT_CHARS:
            return self._tokenize_text(request)
        return await asyncio.to_thread(self._tokenize_text, request)

    def _tokenize_text(self, request: router_pb2.GenerateRequest) -> list[int]:
        tokenizer = self._model.tokenizer
        if request.HasField("chat"):
            messages = [Message(each.role, each.content) for each in request.chat.messages]
            return tokenizer.chat(messages)
        return tokenizer.encode(request.prompt) if request.prompt else []

    def _checked_ids(self, message: router_pb2.TokenIds) -> list[int]:
        highest = self._model.vocab_size - 1
        for position, token_id in enumerate(message.ids):
            if token_id > highest:
                raise InvalidRequestError(
                    f"token_ids[{position}] is {token_id}; it must lie in [0, {highest}]",
                    field="token_ids",
                    limit=f"[0, {highest}]",
                )
        return list(message.ids)

    def _end_token_ids(self, sampling: SamplingParams) -> frozenset[int]:
        own = frozenset() if sampling.ignore_eos else self._model.eos_token_ids
        return own | frozenset(sampling.stop_token_ids)


def _input_field(request: router_pb2.GenerateRequest) -> str:
    """The field that holds the input, as errors name it."""
    kind = request.WhichOneof("input")
    if kind is None:
        raise InvalidRequestError(
            "the request has no input; it must have prompt, chat or token_ids", field="input"
        )
    return "messages" if kind == "chat" else kind


def _check_chars(field: str, chars: int, context_limit: int) -> None:
    most = context_limit * _MAX_CHARS_PER_TOKEN
    if chars > most:
        raise InvalidRequestError(
            f"{field} has {chars} characters; the context of {context_limit} tokens "
            f"cannot hold more than {most}",
            field=field,
            limit=str(most),
        )


def _check_prompt(prompt: list[int], field: str, context_limit: int) -> None:
    if not prompt:
        raise InvalidRequestError(f"{field} is empty", field=field, limit="at least 1 token")
    if len(prompt) >= context_limit:
        raise InvalidRequestError(
            f"{field} has {len(prompt)} tokens; the context of {context_limit} tokens leaves room "
            f"for {context_limit - 1} and one of output",
            field=field,
            limit=str(context_limit - 1),
        )


def _check_room(prompt_tokens: int, max_tokens: int, context_limit: int) -> None:
    room = context_limit - prompt_tokens
    if max_tokens > room:
        raise InvalidRequestError(
            f"max_tokens is {max_tokens}; after {prompt_tokens} tokens of prompt the context of "
            f"{context_limit} tokens has room for {room}",
            field="max_tokens",
            limit=str(room),
        )
