"""Limits and addresses of KV transfer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """How KV moves; times in seconds, sizes in bytes. Both sides have one each.

    `host` is the address of this machine that the other side can reach; everything that listens
    listens there and nowhere else. A segment is the unit that is sent, checked and acknowledged.
    """

    host: str = "127.0.0.1"
    segment_bytes: int = 8 << 20
    # Longest time one segment may take, and so the time after which a silent peer is given up.
    segment_timeout_s: float = 3.0
    connect_timeout_s: float = 5.0
    # How long prefill keeps KV for a decode instance that says nothing, and the longest silence of
    # a prefill instance that decode bears. Both sides speak every third of it.
    lease_s: float = 10.0
    max_channels: int = 64
    # Segments that may wait in one channel.
    max_queue: int = 1024
    # An unused channel ends after this time.
    channel_idle_s: float = 60.0

    @property
    def heartbeat_s(self) -> float:
        """How often each side of a pull lets the other know that it is alive."""
        return self.lease_s / 3
