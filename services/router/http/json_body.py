"""The body of a request: bytes to a JSON object, or the reason why they are none."""

import json
from collections import Counter
from typing import Any, NoReturn

from pdserve.errors import InvalidRequestError


def parse_object(body: bytes) -> dict[str, Any]:
    """The object that `body` spells. Raises `InvalidRequestError` for anything else.

    Stricter than `json.loads` where that guesses: NaN and Infinity are no JSON (RFC 8259, section
    6), and a key that is there twice could mean either value.
    """
    try:
        document = json.loads(
            body.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as error:
        text = f"the body is not valid UTF-8: {error.reason} at byte {error.start}"
        raise InvalidRequestError(text, field="body") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequestError(
            f"the body is not valid JSON: {error.msg} at {where}", field="body"
        ) from error
    except RecursionError as error:
        raise InvalidRequestError("the body is nested too deeply", field="body") from error
    except ValueError as error:  # Python's own limit, against quadratic conversion
        raise InvalidRequestError(
            "the body has a whole number of thousands of digits", field="body"
        ) from error
    if not isinstance(document, dict):
        raise InvalidRequestError("the body must be a JSON object", field="body")
    return document


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise InvalidRequestError(f"the key {twice!r} is there twice in one object", field=twice)
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequestError(f"the body holds {name}, which JSON does not have", field="body")
