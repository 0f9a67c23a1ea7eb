"""JSON as it is written."""

import json
from collections.abc import Mapping
from typing import Any


def to_json(document: Mapping[str, Any]) -> str:
    """The document in one line of ASCII.

    Errors quote what clients send, and half a surrogate pair has no form in UTF-8.
    """
    return json.dumps(document, separators=(",", ":"))
