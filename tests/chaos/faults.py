"""Does harm to a member of the cluster, and undoes it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos.cells import Cell, Fault, Victim
from tests.chaos.cluster import SILENCE_S, ChaosCluster
from tests.chaos.members import InstanceMember, Member

# Longer than the router bears to hear nothing.
ROUTER_STOP_S = 1.2 * SILENCE_S
# A transfer of a prompt takes a tenth of a second then, a segment far less than it may.
SLOW_LINK_BYTES_PER_S = 500e3
SLOW_BYTES_PER_S, SLOW_DELAY_S = 200e3, 0.01


@dataclass(frozen=True, slots=True)
class Harm:
    """`do` returns when it has been done; `undo` is awaited when all streams have ended."""

    do: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]]


def harm(cell: Cell, cluster: ChaosCluster, victim: Member) -> Harm:
    """The cell's fault, on `victim`: of a link, the prefill instance that it leads away from."""
    if cell.victim is Victim.LINK:
        assert isinstance(victim, InstanceMember)
        return _on_link(cell.fault, victim)
    match cell.fault:
        case Fault.KILL:
            return Harm(victim.process.kill, victim.start)
        case Fault.STOP if cell.victim is Victim.ROUTER:
            return Harm(lambda: _pause(victim), _nothing)
        case Fault.STOP:
            return Harm(
                lambda: _signal(victim, signal.SIGSTOP), lambda: _signal(victim, signal.SIGCONT)
            )
        case Fault.CUT:
            return Harm(_at_once(victim.proxy.cut), _nothing)
        case Fault.SILENCE:
            return Harm(_at_once(victim.proxy.silence), _at_once(victim.proxy.heal))
    slow = _at_once(lambda: victim.proxy.slow_down(SLOW_BYTES_PER_S, SLOW_DELAY_S))
    return Harm(slow, _at_once(victim.proxy.heal))


def _on_link(fault: Fault, sender: InstanceMember) -> Harm:
    say = sender.controls.say
    match fault:
        case Fault.CUT:
            return Harm(lambda: say("cut"), _nothing)
        case Fault.SILENCE:
            return Harm(lambda: say("throttle 1"), lambda: say("throttle 0"))
    return Harm(lambda: say(f"throttle {SLOW_LINK_BYTES_PER_S}"), lambda: say("throttle 0"))


async def _signal(victim: Member, number: signal.Signals) -> None:
    victim.process.signal(number)


async def _pause(victim: Member) -> None:
    """Stops a process for a while, and returns at once when it is stopped."""
    victim.process.signal(signal.SIGSTOP)
    asyncio.get_running_loop().call_later(ROUTER_STOP_S, victim.process.signal, signal.SIGCONT)


def _at_once(action: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def acted() -> None:
        action()

    return acted


async def _nothing() -> None:
    """What ends by itself."""
