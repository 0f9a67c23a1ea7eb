"""The ranking by load."""

from collections.abc import Sequence

from services.router.view import Candidate


class LeastLoad:
    """Prefill where the fewest prompt tokens wait, decode where the fewest requests are."""

    def prefills(self, able: Sequence[Candidate]) -> Sequence[Candidate]:
        """By prompt tokens, then by requests."""
        return sorted(able, key=lambda each: (each.load.tokens, each.load.requests))

    def decodes(self, able: Sequence[Candidate]) -> Sequence[Candidate]:
        """By requests, then by tokens of context."""
        return sorted(able, key=lambda each: (each.load.requests, each.load.tokens))
