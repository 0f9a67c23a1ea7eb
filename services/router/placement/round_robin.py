"""The ranking that takes turns."""

from collections.abc import Sequence

from services.router.view import Candidate


class RoundRobin:
    """Each phase's instances in turn, whatever their load."""

    def __init__(self) -> None:
        self._turn = 0

    def prefills(self, able: Sequence[Candidate]) -> Sequence[Candidate]:
        """From the one whose turn it is on."""
        return _rotated(able, self._turn)

    def decodes(self, able: Sequence[Candidate]) -> Sequence[Candidate]:
        """From the one whose turn it is on."""
        # Decode is ranked first and always: that is where a turn begins.
        self._turn += 1
        return _rotated(able, self._turn)


def _rotated(able: Sequence[Candidate], turn: int) -> Sequence[Candidate]:
    first = turn % len(able) if able else 0
    return [*able[first:], *able[:first]]
