"""Instances are replaced one by one, as Kubernetes does it, while clients keep on asking."""

import random
from itertools import product
from pathlib import Path

import pytest

from pdserve.config import InstanceConfig, RouterConfig
from pdserve.kv.layout import TRANSFER_PROTOCOL
from tests.chaos.load import Load, Stream
from tests.doubles.shaped_instance import Shape
from tests.integration.harness import PATIENCE_S
from tests.integration.kube_release import KubeRelease, kube_release

INSTANCE = InstanceConfig(
    threads=1, segment_timeout_s=PATIENCE_S, connect_timeout_s=PATIENCE_S, lease_s=PATIENCE_S,
    drain_grace_s=60,
)  # fmt: skip
ROUTER = RouterConfig(
    http=False, silence_timeout_s=PATIENCE_S, silence_floor_s=PATIENCE_S, canary_interval_s=0
)
PHASES = ("prefill", "decode")
FIRST, SAME_MODEL, NEXT = "first", "same", "next"
SHAPES = {
    FIRST: Shape(fingerprint="one"),
    # Another version of pdserve that hands KV over in the same way.
    SAME_MODEL: Shape(fingerprint="one"),
    # One that does not, with another revision of the model.
    NEXT: Shape(fingerprint="two", protocol=TRANSFER_PROTOCOL + 1),
}


@pytest.mark.timeout(300)
async def test_no_request_fails_while_every_instance_is_replaced(tmp_path: Path) -> None:
    async with kube_release(INSTANCE, tmp_path) as release:
        channel = await release.start_router(ROUTER)
        await start(release, FIRST)
        load = Load(channel, clients=6, rng=random.Random(3))
        before = FIRST
        async with load.running():
            for revision in (SAME_MODEL, NEXT):
                await upgrade(release, before, revision)
                before = revision
        assert await release.members() == set(names(NEXT))
    assert load.errors() == []
    assert [each.ids for each in load.streams] == [each.expected for each in load.streams]
    pairs = used_pairs(load.streams)
    together = ({FIRST, SAME_MODEL}, {NEXT})
    assert all(any(pair <= each for each in together) for pair in pairs), pairs
    assert {FIRST, SAME_MODEL} in pairs, "versions that fit together were not used together"


def names(revision: str) -> list[str]:
    """Of its instances, in the order in which they come."""
    return [f"{revision}-{role}-{index}" for index, role in product(range(2), PHASES)]


async def start(release: KubeRelease, revision: str) -> None:
    for name in names(revision):
        release.start(name.split("-")[1], name, SHAPES[revision])
    await release.until_up(*names(revision))


async def upgrade(release: KubeRelease, before: str, revision: str) -> None:
    """One new instance, then one old one less, and so on for all of them."""
    for old, new in zip(names(before), names(revision), strict=True):
        release.start(new.split("-")[1], new, SHAPES[revision])
        await release.until_up(new)
        await release.remove(old)


def used_pairs(streams: list[Stream]) -> set[frozenset[str]]:
    """The revisions that each attempt which had two instances ran on."""
    return {
        frozenset(name.split("-")[0] for name in (attempt.prefill, attempt.decode))
        for stream in streams
        for attempt in stream.attempts
        if attempt.prefill
    }
