"""Stop strings: generation ends where one of them would appear.

The automaton is that of Aho and Corasick, "Efficient String Matching" (CACM 1975), section 2: one
step a character whatever the number of strings, and its depth is how much text must be held back.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pdserve.errors import InvalidRequestError

MAX_STOPS = 16
MAX_STOP_CHARS = 256


@dataclass(slots=True)
class _State:
    """A prefix of some stop string: the longest one that the text ends with."""

    depth: int
    next: "dict[str, _State]" = field(default_factory=dict)
    # The state of the longest proper suffix that is a prefix too; None for the root.
    fallback: "_State | None" = None
    # The longest stop string that the text ends with.
    stop: str | None = None


class StopStrings:
    """Passes text on up to the stop string that is complete first; of several, the longest.

    The result does not depend on how the text is cut into pieces. `matched` is the stop string
    that ended the text. Raises `InvalidRequestError` for more than `MAX_STOPS` strings, an empty
    one, or one of more than `MAX_STOP_CHARS` characters.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        _validate(stops)
        self.matched: str | None = None
        self._state = _automaton(stops)
        # The end of the text, as long as the state is deep: it may become a stop string.
        self._held = ""

    def push(self, text: str) -> str:
        """The text that can be shown now; empty once a stop string has matched."""
        if self.matched is not None:
            return ""
        text = self._held + text
        for position in range(len(self._held), len(text)):
            self._state = _step(self._state, text[position])
            if self._state.stop is not None:
                self.matched = self._state.stop
                self._held = ""
                return text[: position + 1 - len(self.matched)]
        safe = len(text) - self._state.depth
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """The text held back, now that no more will come."""
        held, self._held = self._held, ""
        return held


def _validate(stops: Sequence[str]) -> None:
    if len(stops) > MAX_STOPS:
        raise InvalidRequestError(
            f"stop has {len(stops)} strings; it may have {MAX_STOPS} at most",
            field="stop",
            limit=str(MAX_STOPS),
        )
    for index, stop in enumerate(stops):
        if not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise InvalidRequestError(
                f"stop[{index}] has {len(stop)} characters; it must have 1 to {MAX_STOP_CHARS}",
                field="stop",
                limit=f"[1, {MAX_STOP_CHARS}]",
            )


def _step(state: _State, character: str) -> _State:
    at: _State | None = state
    while at is not None:
        if character in at.next:
            return at.next[character]
        state, at = at, at.fallback
    return state  # the root


def _automaton(stops: Sequence[str]) -> _State:
    """The root of the trie of `stops`, with fallbacks set breadth first."""
    root = _State(depth=0)
    for stop in stops:
        state = root
        for character in stop:
            state = state.next.setdefault(character, _State(state.depth + 1))
        state.stop = stop
    waiting = deque([root])
    while waiting:
        state = waiting.popleft()
        for character, child in state.next.items():
            child.fallback = _step(state.fallback, character) if state.fallback else root
            child.stop = child.stop or child.fallback.stop
            waiting.append(child)
    return root
