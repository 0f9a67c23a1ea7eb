"""The body of `POST /v1/completions`."""

from typing import Any

from pdserve.rpc.http_errors import ParameterError
from pdserve.rpc.v1 import router_pb2
from pdserve.sampling import MAX_COUNT, MAX_LOGPROBS
from services.router.http.fields import Fields, as_text, as_whole, wrong_type
from services.router.http.order import Desk, Order
from services.router.http.sampling import sampling_of

# What OpenAI takes where nothing is said: a text that is only continued may never end by itself.
_DEFAULT_MAX_TOKENS = 16
_MAX_TOKEN_ID = 2**32 - 1
# What asks for nothing stands with each field.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {"echo": (False,), "suffix": ("",)}


def completions_order(fields: Fields, desk: Desk) -> Order:
    """What the body asks for. Raises `ParameterError` naming the first field that is wrong."""
    fields.refuse(_UNSUPPORTED)
    fields.refuse({"best_of": (fields.take("n") or 1,)})
    prompts = _prompts(fields.required("prompt"))
    max_tokens = fields.whole("max_tokens", 1, MAX_COUNT) or _DEFAULT_MAX_TOKENS
    logprobs = fields.whole("logprobs", 0, MAX_LOGPROBS)
    return desk.order(fields, prompts, sampling_of(fields, max_tokens, logprobs), {})


def _prompts(value: Any) -> list[router_pb2.GenerateRequest]:
    """One request for each prompt: a text, a list of texts, token ids, a list of token ids."""
    if isinstance(value, str):
        return [_text(value, "prompt")]
    if not isinstance(value, list):
        raise wrong_type("prompt", "a string, a list of strings, or token ids")
    if not value:
        raise ParameterError("prompt is empty", field="prompt", code="invalid_value")
    if isinstance(value[0], str):
        return [_text(each, f"prompt[{place}]") for place, each in enumerate(value)]
    if isinstance(value[0], list):
        return [_token_ids(each, f"prompt[{place}]") for place, each in enumerate(value)]
    return [_token_ids(value, "prompt")]


def _text(value: Any, name: str) -> router_pb2.GenerateRequest:
    return router_pb2.GenerateRequest(prompt=as_text(value, name))


def _token_ids(value: Any, name: str) -> router_pb2.GenerateRequest:
    if not isinstance(value, list):
        raise wrong_type(name, "a list of token ids")
    ids = [as_whole(each, name, 0, _MAX_TOKEN_ID) for each in value]
    return router_pb2.GenerateRequest(token_ids=router_pb2.TokenIds(ids=ids))
