"""Renders a conversation into the prompt that a chat model was trained on.

Templates are Jinja programs that come with model files. What they may use is what Hugging Face
documents for `apply_chat_template`; they run sandboxed, since model files are not trusted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pdserve.errors import InvalidRequestError, UnsupportedModelError

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


class ChatTemplate:
    """The chat template of a model; `UnsupportedModelError` where it is no valid template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise UnsupportedModelError(
                f"the model's chat template is not valid: line {error.lineno}: {error.message}"
            ) from error
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, ready for the assistant's answer.

        Raises `InvalidRequestError` for an empty conversation, an unknown role, and whatever the
        template itself refuses.
        """
        _validate(messages)
        try:
            return self._template.render(self._variables(messages))
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise _invalid(f"the model's chat template refuses the messages: {error}") from error

    def _variables(self, messages: Sequence[Message]) -> dict[str, Any]:
        return {
            **self._special_tokens,
            "messages": [{"role": each.role, "content": each.content} for each in messages],
            "add_generation_prompt": True,
            "tools": None,
            "documents": None,
        }


def _validate(messages: Sequence[Message]) -> None:
    if not messages:
        raise _invalid("messages is empty; it must hold at least one message")
    for index, message in enumerate(messages):
        if message.role not in ROLES:
            raise _invalid(
                f"messages[{index}].role is {message.role!r}; it must be one of {', '.join(ROLES)}",
                limit="|".join(ROLES),
            )


def _invalid(text: str, limit: str = "") -> InvalidRequestError:
    return InvalidRequestError(text, field="messages", limit=limit)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}` marks what training counts; here it is only text."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which prompts must not be.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)
