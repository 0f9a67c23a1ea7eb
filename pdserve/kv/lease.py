"""Leases: until when prefill keeps KV that nobody has pulled yet."""

from collections.abc import Callable


class Leases:
    """The leases of one instance, by transfer id. Plain data: whoever owns it watches the clock."""

    def __init__(self, duration_s: float, clock: Callable[[], float]) -> None:
        self._duration_s = duration_s
        self._clock = clock
        # In order of expiry, since all have the same duration.
        self._expiry: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._expiry)

    def grant(self, transfer_id: str) -> None:
        """Starts a lease, or starts it anew."""
        self._expiry.pop(transfer_id, None)
        self._expiry[transfer_id] = self._clock() + self._duration_s

    def renew(self, transfer_id: str) -> None:
        """Starts the lease anew, if there is one: without a grant there is nothing to renew."""
        if transfer_id in self._expiry:
            self.grant(transfer_id)

    def end(self, transfer_id: str) -> None:
        """Ends a lease, if there is one."""
        self._expiry.pop(transfer_id, None)

    def expired(self) -> list[str]:
        """Ends and returns the leases whose time is over."""
        now = self._clock()
        over = [transfer_id for transfer_id, expiry in self._expiry.items() if expiry <= now]
        for transfer_id in over:
            del self._expiry[transfer_id]
        return over

    def next_expiry_s(self) -> float | None:
        """Seconds until the next lease expires; None without leases."""
        first = next(iter(self._expiry.values()), None)
        return None if first is None else max(0.0, first - self._clock())
