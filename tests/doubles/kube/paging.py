"""Lists in parts: the rest of a list, as it was when its first part was asked for."""

import base64
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from tests.doubles.kube.errors import ApiError

# How many unfinished lists are kept.
UNFINISHED = 64


@dataclass(frozen=True, slots=True)
class Page:
    """One part of a list at a version; `token` asks for the next one, empty after the last."""

    version: int
    items: list[dict[str, Any]]
    token: str = ""
    remaining: int = 0


class Pages:
    """Hands lists out in parts."""

    def __init__(self) -> None:
        self._rests: OrderedDict[str, tuple[int, list[dict[str, Any]]]] = OrderedDict()
        self._count = 0

    def first(self, version: int, items: list[dict[str, Any]], limit: int) -> Page:
        """The first `limit` items; all of them where it is 0."""
        if not limit or len(items) <= limit:
            return Page(version, items)
        self._count += 1
        content = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": self._count})
        token = base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")
        self._rests[token] = (version, items[limit:])
        if len(self._rests) > UNFINISHED:
            self._rests.popitem(last=False)
        return Page(version, items[:limit], token, len(items) - limit)

    def next(self, token: str, limit: int) -> Page:
        """The part after that one; raises ApiError (410) where the list is forgotten."""
        if token not in self._rests:
            message = "The provided continue parameter is too old to display a consistent list"
            raise ApiError(410, "Expired", message)
        return self.first(*self._rests[token], limit)

    def forget(self) -> None:
        """Makes every unfinished list too old to go on with."""
        self._rests.clear()
