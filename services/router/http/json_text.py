"""JSON as it is written."""

import json
from collections.abc import Mapping
from typing import Any

# One for all: a call of json.dumps makes another, which takes longer than a small document.
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def to_json(document: Mapping[str, Any]) -> str:
    """The document in one line of ASCII.

    Errors quote what clients send, and half a surrogate pair has no form in UTF-8.
    """
    return _ENCODER.encode(document)
