"""The body of `POST /v1/chat/completions`."""

from typing import Any

from pdserve.rpc.http_errors import ParameterError
from pdserve.rpc.v1 import router_pb2
from pdserve.sampling import MAX_COUNT, MAX_LOGPROBS
from services.router.http.fields import Fields, as_text, wrong_type
from services.router.http.order import Desk, Order
from services.router.http.sampling import sampling_of

_ROLES = ("system", "developer", "user", "assistant")
# What asks for nothing stands with each field.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
}
_UNSUPPORTED_OF_MESSAGE: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}


def chat_order(fields: Fields, desk: Desk) -> Order:
    """What the body asks for. Raises `ParameterError` naming the first field that is wrong."""
    fields.refuse(_UNSUPPORTED)
    messages = _messages(fields.required("messages"))
    prompt = router_pb2.GenerateRequest(chat=router_pb2.Chat(messages=messages))
    limit_name, max_tokens = _max_tokens(fields)
    sampling = sampling_of(fields, max_tokens, _logprobs(fields))
    return desk.order(
        fields, [prompt], sampling, {"max_tokens": limit_name, "logprobs": "top_logprobs"}
    )


def _max_tokens(fields: Fields) -> tuple[str, int | None]:
    """The limit, and under which of its two names it was given."""
    new, old = "max_completion_tokens", "max_tokens"
    by_new, by_old = (fields.whole(name, 1, MAX_COUNT) for name in (new, old))
    if by_new is not None and by_old is not None and by_new != by_old:
        raise ParameterError(
            f"{old} is {by_old} and {new} is {by_new}; they mean the same",
            field=old,
            code="invalid_value",
        )
    return (old, by_old) if by_new is None else (new, by_new)


def _logprobs(fields: Fields) -> int | None:
    top = fields.whole("top_logprobs", 0, MAX_LOGPROBS)
    if fields.flag("logprobs"):
        return top or 0
    if top:
        text = "top_logprobs is only for logprobs: true"
        raise ParameterError(text, field="top_logprobs", code="invalid_value")
    return None


def _messages(value: Any) -> list[router_pb2.ChatMessage]:
    if not isinstance(value, list):
        raise wrong_type("messages", "a list of messages")
    return [_message(each, f"messages[{place}]") for place, each in enumerate(value)]


def _message(value: Any, name: str) -> router_pb2.ChatMessage:
    if not isinstance(value, dict):
        raise wrong_type(name, "an object with role and content")
    fields = Fields(value, name)
    role = as_text(fields.required("role"), f"{name}.role")
    if role not in _ROLES:
        raise ParameterError(
            f"{name}.role is {role!r}; it must be one of {', '.join(_ROLES)}",
            field=f"{name}.role",
            code="invalid_value",
            limit="|".join(_ROLES),
        )
    content = _content(fields.required("content"), f"{name}.content")
    fields.refuse(_UNSUPPORTED_OF_MESSAGE)
    fields.ignore(("name",))
    fields.done()
    return router_pb2.ChatMessage(role=role, content=content)


def _content(value: Any, name: str) -> str:
    """The text: as it is, or of all parts, with nothing in between."""
    if isinstance(value, str):
        return as_text(value, name)
    if not isinstance(value, list):
        raise wrong_type(name, "a string or a list of text parts")
    return "".join(_part(each, f"{name}[{place}]") for place, each in enumerate(value))


def _part(value: Any, name: str) -> str:
    if not isinstance(value, dict):
        raise wrong_type(name, "an object with type and text")
    fields = Fields(value, name)
    kind = as_text(fields.required("type"), f"{name}.type")
    if kind != "text":
        raise ParameterError(
            f"{name}.type is {kind!r}; only text is supported",
            field=f"{name}.type",
            code="unsupported_value",
            limit="text",
        )
    text = as_text(fields.required("text"), f"{name}.text")
    # A hint where a prefix ends that is worth caching; all full blocks are cached here.
    fields.ignore(("cache_control", "prompt_cache_breakpoint"))
    fields.done()
    return text
