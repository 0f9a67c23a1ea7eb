"""The ranking by lot."""

import random
from collections.abc import Sequence

from services.router.view import Candidate


class RandomOrder:
    """Any instance, all alike."""

    def __init__(self, lot: random.Random) -> None:
        self._lot = lot

    def prefills(self, able: Sequence[Candidate]) -> Sequence[Candidate]:
        """Shuffled."""
        return self._lot.sample(able, len(able))

    def decodes(self, able: Sequence[Candidate]) -> Sequence[Candidate]:
        """Shuffled."""
        return self._lot.sample(able, len(able))
