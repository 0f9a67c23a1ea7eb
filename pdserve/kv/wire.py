"""`KvLayout` as it travels."""

from pdserve.kv.layout import KvLayout
from pdserve.rpc.v1 import types_pb2


def layout_to_proto(layout: KvLayout) -> types_pb2.KvLayout:
    """Returns `layout` as a message."""
    return types_pb2.KvLayout(
        fingerprint=layout.fingerprint,
        dtype=layout.dtype,
        layers=layout.layers,
        kv_heads=layout.kv_heads,
        head_dim=layout.head_dim,
        block_size=layout.block_size,
        tp=layout.tp,
        pp=layout.pp,
        protocol=layout.protocol,
    )


def layout_from_proto(message: types_pb2.KvLayout) -> KvLayout:
    """Returns the layout in `message`. Raises `IncompatibleLayoutError` for an impossible one."""
    return KvLayout(
        fingerprint=message.fingerprint,
        dtype=message.dtype,
        layers=message.layers,
        kv_heads=message.kv_heads,
        head_dim=message.head_dim,
        block_size=message.block_size,
        tp=message.tp,
        pp=message.pp,
        protocol=message.protocol,
    )
