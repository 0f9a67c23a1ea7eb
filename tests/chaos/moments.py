"""Brings the load to a moment, and keeps it there until the fault has happened."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from tests.chaos.cells import Moment, Victim
from tests.chaos.cluster import ChaosCluster
from tests.chaos.load import Load
from tests.chaos.members import InstanceMember, Member
from tests.chaos.polling import until

_TRIES, _TRY_S = 40, 0.5


@asynccontextmanager
async def moment(
    wanted: Moment, cluster: ChaosCluster, victim: Member, load: Load
) -> AsyncIterator[None]:
    """Inside it, at least one request that `victim` takes part in stands at the moment.

    What makes it stand there is a thread of an instance that is held; leaving lets go of it.
    Nobody guides the requests of `load`: where none comes by, it lets go and tries again.
    """
    for _ in range(_TRIES):
        try:
            async with asyncio.timeout(_TRY_S):
                await _REACH[wanted](cluster, victim)
            break
        except TimeoutError:
            _let_go(cluster)
    else:
        raise AssertionError(f"no request of {victim.name} was ever {wanted}: {load.errors()}")
    try:
        yield
    finally:
        _let_go(cluster)


def _let_go(cluster: ChaosCluster) -> None:
    """Also of who is stopped or has gone: the one hears of it later, the other never."""
    for each in cluster.instances:
        each.controls.post("release")
        each.controls.post("resume")


async def _queued(cluster: ChaosCluster, victim: Member) -> None:
    prefills = cluster.of(Victim.PREFILL)
    await _hold("computing", prefills)

    async def one_waits() -> bool:
        return any([(await each.report()).waiting_requests > 0 for each in _mine(prefills, victim)])

    await until(one_waits, _TRY_S)


async def _computing(cluster: ChaosCluster, victim: Member) -> None:
    prefills = cluster.of(Victim.PREFILL)
    await _hold("computing", _mine(prefills, victim))
    await _any_held(_mine(prefills, victim))
    await _receiving_if_decode(victim)


async def _between(cluster: ChaosCluster, victim: Member) -> None:
    """Bytes are kept from moving, so that what is computed is held for whoever pulls it."""
    senders = cluster.of(Victim.PREFILL)
    receives = victim.role is Victim.DECODE
    for each in [victim] if receives else _mine(senders, victim):
        await each.controls.say("stall")

    async def one_is_held() -> bool:
        held = sum([(await each.report()).leases for each in _mine(senders, victim)])
        if not receives:
            return held > 0
        # A lease does not say for whom. When there are as many as transfers, it is for each.
        pulls = [(await each.report()).transfers for each in cluster.of(Victim.DECODE)]
        mine = (await victim.report()).transfers
        return mine > 0 and sum(pulls) <= held

    await until(one_is_held, _TRY_S)


async def _transfer(cluster: ChaosCluster, victim: Member) -> None:
    if victim.role is Victim.DECODE:
        await _hold("receiving", [victim])
        await _any_held([victim])
    else:
        senders = _mine(cluster.of(Victim.PREFILL), victim)
        await _hold("sending", senders)
        await _any_held(senders)


async def _decoding(cluster: ChaosCluster, victim: Member) -> None:
    decodes = _mine(cluster.of(Victim.DECODE), victim)
    await _hold("decoding", decodes)
    await _any_held(decodes)


async def _finishing(cluster: ChaosCluster, victim: Member) -> None:
    decodes = _mine(cluster.of(Victim.DECODE), victim)
    await _hold("finishing", decodes)
    await _any_held(decodes)


_REACH: dict[Moment, Callable[[ChaosCluster, Member], Awaitable[None]]] = {
    Moment.QUEUED: _queued,
    Moment.COMPUTING: _computing,
    Moment.BETWEEN: _between,
    Moment.TRANSFER: _transfer,
    Moment.DECODING: _decoding,
    Moment.FINISHING: _finishing,
}


def _mine(instances: Sequence[InstanceMember], victim: Member) -> Sequence[InstanceMember]:
    """The victim where it is one of them, else all."""
    return [each for each in instances if each is victim] or instances


async def _hold(stage: str, instances: Sequence[InstanceMember]) -> None:
    for each in instances:
        await each.controls.hold(stage)


async def _any_held(instances: Sequence[InstanceMember]) -> None:
    waits = [asyncio.create_task(each.controls.held.wait()) for each in instances]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _receiving_if_decode(victim: Member) -> None:
    """Decode binds to a request as soon as it is being computed."""
    if victim.role is not Victim.DECODE:
        return

    async def bound() -> bool:
        return (await victim.report()).transfers > 0

    await until(bound, _TRY_S)
