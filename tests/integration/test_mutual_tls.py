"""A local cluster whose processes show each other certificates: real services, no model."""

from functools import partial
from pathlib import Path

import pytest
from harness import PATIENCE_S, START_TIMEOUT_S, by_ids, generate, greedy

from pdserve.cli.local_cluster import ClusterSpec, LocalCluster
from pdserve.rpc.channel import open_channel
from pdserve.rpc.tls import ClientTls
from tests.doubles.issued_certificates import LOOPBACK, Authority
from tests.doubles.shaped_instance import Shape, shaped_command

pytestmark = pytest.mark.model  # its tokenizer

PATIENT = {"segment_timeout_s": PATIENCE_S, "connect_timeout_s": PATIENCE_S, "lease_s": PATIENCE_S}
REQUEST = by_ids(range(100, 140), greedy(8))


async def test_kv_is_handed_over_and_certificates_are_rotated(tmp_path: Path) -> None:
    links = Authority().issue(tmp_path / "links")
    door = Authority().issue(tmp_path / "door", LOOPBACK)
    router = links.router(
        tls_door_cert=str(door.cert), tls_door_key=str(door.key), silence_timeout_s=PATIENCE_S
    )
    instance = links.instance(threads=1, **PATIENT)
    spec = ClusterSpec(1, 1, instance, router, START_TIMEOUT_S)
    trust = ClientTls.read(str(door.ca))
    async with (
        LocalCluster(spec, command_of=partial(shaped_command, Shape())) as cluster,
        open_channel(cluster.router_address, trust) as channel,
    ):
        answer = await generate(channel, REQUEST)
        assert answer.end.ledger.transfer_bytes
        # Another authority: an instance that comes now is met with the new certificates alone.
        Authority().issue(links.cert.parent)
        await cluster.kill("decode-0")
        await cluster.restart("decode-0")
        again = await generate(channel, REQUEST)
        assert again.end.ledger.transfer_bytes
        assert again.ids == answer.ids
