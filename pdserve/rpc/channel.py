"""Client channels between processes, with keep-alive so that a cut connection is noticed."""

import grpc
from grpc import aio

from pdserve.rpc.tls import ClientTls

MAX_MESSAGE_BYTES = 64 << 20

# A peer that answers no ping for KEEPALIVE_TIMEOUT is gone: calls on the channel fail UNAVAILABLE.
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Instances are single processes with addresses of their own: no proxy stands between.
    ("grpc.enable_http_proxy", 0),
    # Two channels to one address stay two connections: closing one cuts nobody else's calls.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str, tls: ClientTls | None = None) -> aio.Channel:
    """A channel to `address` (host:port), over TLS if that is given; it connects on first use.

    The caller closes it.
    """
    if tls is None:
        return aio.insecure_channel(address, options=_OPTIONS)
    return aio.secure_channel(address, tls.credentials(), options=(*_OPTIONS, *tls.options()))


def open_blocking_channel(address: str, tls: ClientTls | None = None) -> grpc.Channel:
    """The same channel as `open_channel`, for programs without an event loop."""
    if tls is None:
        return grpc.insecure_channel(address, options=_OPTIONS)
    return grpc.secure_channel(address, tls.credentials(), options=(*_OPTIONS, *tls.options()))
