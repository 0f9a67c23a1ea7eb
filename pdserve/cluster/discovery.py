"""Who belongs to the cluster, whatever the source."""

from collections.abc import AsyncIterator
from typing import Protocol

from pdserve.cluster.instance import InstanceAddress


class Discovery(Protocol):
    """A source of instance addresses: a list, a file that is read again, DNS, an orchestrator."""

    @property
    def problem(self) -> str:
        """Why the membership may be out of date or not whole; empty: nothing is known to be wrong.

        The last membership stays meanwhile.
        """
        ...

    def watch(self) -> AsyncIterator[tuple[InstanceAddress, ...]]:
        """The whole membership, and again the whole of it after each change.

        Ends where no change can come. Addresses and names within one membership are distinct.
        """
        ...
