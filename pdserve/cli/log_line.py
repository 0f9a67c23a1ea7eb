"""What a line that a service wrote to stderr tells people."""

import json
import logging
from typing import Any


def is_important(line: str) -> bool:
    """Whether it is a warning, an error, or not structured at all."""
    record = _record(line)
    if record is None:
        return True
    name = str(record.get("level", "error")).upper()
    return logging.getLevelNamesMapping().get(name, logging.ERROR) >= logging.WARNING


def event_of(line: str) -> str:
    """Its words: the event where it is structured."""
    record = _record(line)
    if record is None:
        return line
    percent = f" {record['percent']}%" if "percent" in record else ""
    return f"{record.get('event', line)}{percent}"


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
