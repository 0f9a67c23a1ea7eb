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
        # What the runs may need; once that is reserved, what no run has settled.
        self._tokens = 0
        self._reserved = asyncio.Event()

    def enter(self) -> None:
        """A run begins. The first brings all of them in; what it raises is `Account.enter`'s."""
        if not self._inside:
            self.account.enter(self._runs)
            self._inside = True

    def leave(self) -> None:
        """All runs have ended.

        What is left of the reserved tokens belongs to runs that were cancelled before they learned
        of it, and is given back.
        """
        if self._reserved.is_set():
            self.account.give_back(self._tokens)
            self._tokens = 0
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

    def settle(self, reserved: int, used: int) -> None:
        """A run that had reserved so many tokens has ended, and has used so many."""
        self._tokens -= reserved
        self.account.give_back(reserved - used)
