"""Request bodies in the protobuf of Kubernetes, for the kinds that clients send so.

helm stores releases as Secrets through a typed client, and `kubectl create` makes objects through
one: those send protobuf whatever the server prefers, and read JSON. Manifests are always sent as
JSON.
"""

import base64
from collections.abc import Callable, Iterator
from typing import Any

from tests.doubles.kube.errors import ApiError, bad_request

MAGIC = b"k8s\x00"
CONTENT_TYPE = "application/vnd.kubernetes.protobuf"

Decode = Callable[[Any], Any]


def decoded(body: bytes) -> dict[str, Any]:
    """The object in the body, as JSON would have it.

    Raises ApiError for kinds that nobody was seen to send, and for bytes that are no protobuf.
    """
    if not body.startswith(MAGIC):
        raise bad_request("the body does not begin as protobuf of Kubernetes does")
    try:
        envelope = _message(ENVELOPE)(body[len(MAGIC) :])
        kind = envelope["typeMeta"]["kind"]
        if kind not in KINDS:
            raise ApiError(415, "UnsupportedMediaType", f"cannot read {kind} in protobuf")
        found: dict[str, Any] = _message(KINDS[kind])(envelope["raw"])
    except (IndexError, KeyError, ValueError) as error:
        raise bad_request(f"the body is no protobuf: {error!r}") from error
    return {**envelope["typeMeta"], **found}


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The field numbers of a message and their values on the wire."""
    at = 0
    value: int | bytes
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
            case 2:
                size, at = _varint(data, at)
                if at + size > len(data):
                    raise ValueError("the message is cut off")
                value, at = data[at : at + size], at + size
            case wire:
                raise ValueError(f"unexpected wire type {wire}")
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


Fields = dict[int, tuple[str, Decode]]


def _message(fields: Fields) -> Decode:
    """Decodes a message; what is empty is left out, maps and lists are collected."""

    def decode(data: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number, value in _fields(data):
            if number not in fields:
                continue
            name, decode_field = fields[number]
            inner = decode_field(value)
            if isinstance(inner, dict) and name in found:
                found[name] |= inner
            elif isinstance(inner, list):
                found.setdefault(name, []).extend(inner)
            elif inner not in ("", {}):
                found[name] = inner
        return found

    return decode


def _text(data: bytes) -> str:
    return data.decode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _repeated(decode: Decode) -> Decode:
    return lambda data: [decode(data)]


def _map(decode: Decode) -> Decode:
    def entry(data: bytes) -> dict[str, Any]:
        found = dict(_fields(data))
        return {found[1].decode(): decode(found.get(2, b""))}

    return entry


# Field numbers from the generated.proto of k8s.io/apimachinery and k8s.io/api/core/v1.
TYPE_META: Fields = {1: ("apiVersion", _text), 2: ("kind", _text)}
ENVELOPE: Fields = {1: ("typeMeta", _message(TYPE_META)), 2: ("raw", bytes)}
OBJECT_META: Fields = {
    1: ("name", _text),
    2: ("generateName", _text),
    3: ("namespace", _text),
    5: ("uid", _text),
    6: ("resourceVersion", _text),
    11: ("labels", _map(_text)),
    12: ("annotations", _map(_text)),
    14: ("finalizers", _repeated(_text)),
}
SECRET: Fields = {
    1: ("metadata", _message(OBJECT_META)),
    2: ("data", _map(_base64)),
    3: ("type", _text),
    4: ("stringData", _map(_text)),
    5: ("immutable", bool),
}
PRECONDITIONS: Fields = {1: ("uid", _text), 2: ("resourceVersion", _text)}
DELETE_OPTIONS: Fields = {
    1: ("gracePeriodSeconds", int),
    2: ("preconditions", _message(PRECONDITIONS)),
    4: ("propagationPolicy", _text),
    5: ("dryRun", _repeated(_text)),
}
CONFIG_MAP: Fields = {
    1: ("metadata", _message(OBJECT_META)),
    2: ("data", _map(_text)),
    3: ("binaryData", _map(_base64)),
    4: ("immutable", bool),
}
ONLY_METADATA: Fields = {1: ("metadata", _message(OBJECT_META))}
RESOURCE_ATTRIBUTES: Fields = {
    1: ("namespace", _text),
    2: ("verb", _text),
    3: ("group", _text),
    4: ("version", _text),
    5: ("resource", _text),
    6: ("subresource", _text),
    7: ("name", _text),
}
ACCESS_REVIEW_SPEC: Fields = {1: ("resourceAttributes", _message(RESOURCE_ATTRIBUTES))}
ACCESS_REVIEW: Fields = {2: ("spec", _message(ACCESS_REVIEW_SPEC))}
KINDS = {
    "ConfigMap": CONFIG_MAP,
    "DeleteOptions": DELETE_OPTIONS,
    "Namespace": ONLY_METADATA,
    "Secret": SECRET,
    "SelfSubjectAccessReview": ACCESS_REVIEW,
    "ServiceAccount": ONLY_METADATA,
}
