"""One request of a client at the door, with all the runs that it is made of."""

import asyncio

from pdserve.key_limits import Client
from services.router.admission.account import Account


class Visit:
    """What the runs of one request use of the limits of its key, decided for all of them at once.

    They run at the same time, in one task group: where one fails the others are cancelled.
    """

    def __init__(self, client: Client, account: Account, runs: int = 1) -> None:
        self.client = client
        self.account = account
        self._runs = runs
        self._inside = False
        self._undecided = runs
        self._tokens = 0
        self._reserved = asyncio.Event()

    def enter(self) -> None:
        """A run begins. The first brings all of them in; what it raises is `Account.enter`'s."""
        if not self._inside:
            self.account.enter(self._runs)
            self._inside = True

    def leave(self) -> None:
        """All runs have ended."""
        if self._inside:
            self.account.leave(self._runs)
            self._inside = False

    async def reserve(self, tokens: int) -> None:
        """Takes the tokens that a run may need, once all runs have told theirs.

        Raises `OverloadedError` in the last of them.
        """
        self._tokens += tokens
        self._undecided -= 1
        if self._undecided == 0:
            self.account.reserve(self._tokens)
            self._reserved.set()
        await self._reserved.wait()
