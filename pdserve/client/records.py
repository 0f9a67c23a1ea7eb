"""Dataclasses made of messages that have the same fields."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
_NOTHING: Mapping[str, Any] = {}


def record_of(kind: type[T], message: Message, given: Mapping[str, Any] = _NOTHING) -> T:
    """A `kind` with the values that `message` has under its names; `given` are those of others."""
    names = (field.name for field in fields(kind) if field.name not in given)
    return kind(**{name: getattr(message, name) for name in names}, **given)
