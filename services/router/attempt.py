"""One attempt: both legs side by side, or decode alone, until one of them has the result."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar

from services.router.breakers import Breakers
from services.router.decode_leg import DecodeLeg
from services.router.failure import AttemptFailed, InstanceFailure, lost
from services.router.generation import FinishReason
from services.router.guard import guard
from services.router.handoff import Handoff
from services.router.instance import Instance
from services.router.live import LiveRequest
from services.router.prefill_leg import PrefillLeg
from services.router.releaser import Releaser

_T = TypeVar("_T")
_Part = Coroutine[Any, Any, FinishReason | None]


class Attempts:
    """Runs attempts, and tells the breakers how their hand-offs went."""

    def __init__(self, releaser: Releaser, breakers: Breakers) -> None:
        self._releaser = releaser
        self._breakers = breakers

    async def remote(self, live: LiveRequest, prefill: Instance, decode: Instance) -> FinishReason:
        """Prefill on one instance, decode on another; returns why the generation ended.

        Raises `AttemptFailed`. Whatever happens, both calls are over at the end and prefill is told
        to free what it may still hold.
        """
        pair = prefill.incarnation, decode.incarnation
        # The KV counts as under way from the decision on: the next one must not see a free link.
        flight = ExitStack()

        def landed() -> None:
            self._breakers.succeeded(*pair)
            flight.close()

        handoff = Handoff(landed)
        first = PrefillLeg(live, prefill, handoff)
        second = DecodeLeg(live, decode, handoff)
        try:
            with flight, live.dispatch(prefill) as to_prefill, live.dispatch(decode) as to_decode:
                flight.enter_context(_in_flight(live, prefill, decode))
                return await _first_result(
                    _until_handed_off(_unless_cut(first.run(to_prefill), prefill), handoff),
                    _unless_cut(second.run(to_decode), decode),
                    _until_handed_off(guard(live, prefill), handoff),
                    guard(live, decode),
                )
        except AttemptFailed as failure:
            if failure.of_hand_off:
                self._breakers.failed(*pair)
            raise
        finally:
            if first.transfer_id:
                ref = live.ref(prefill.incarnation)
                self._releaser.release(prefill, ref, first.transfer_id)

    async def local(self, live: LiveRequest, decode: Instance) -> FinishReason:
        """Both phases on one instance; returns why the generation ended. Raises `AttemptFailed`."""
        leg = DecodeLeg(live, decode, Handoff.none())
        with live.dispatch(decode) as dispatch:
            return await _first_result(_unless_cut(leg.run(dispatch), decode), guard(live, decode))


def _in_flight(
    live: LiveRequest, prefill: Instance, decode: Instance
) -> AbstractContextManager[None]:
    size_bytes = live.tokens_to_prefill * decode.layout.token_bytes
    links = decode.knowledge.links
    return links.in_flight(prefill.incarnation, decode.incarnation, size_bytes)


async def _until_handed_off(part: Coroutine[Any, Any, _T], handoff: Handoff) -> _T | None:
    """What prefill does: once the hand-off is done, nothing depends on it."""
    try:
        return await part
    except InstanceFailure:
        if handoff.done:
            return None
        raise


async def _unless_cut(call: Coroutine[Any, Any, _T], instance: Instance) -> _T:
    """The result of a call that its server may cut: it ends as if it had been cancelled here."""
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise lost(instance, "it cut the call") from None


async def _first_result(*parts: _Part) -> FinishReason:
    """What the first part returns that returns anything; ends all of them, whatever happens.

    Raises `AttemptFailed` with the failures of the moment as soon as a part fails.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None and (reason := task.result()) is not None:
                    return reason
            _raise_failures([error for task in done if (error := task.exception())])
        raise AssertionError("the decode leg ends with a result or a failure")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _raise_failures(errors: list[BaseException]) -> None:
    failures = [error for error in errors if isinstance(error, InstanceFailure)]
    for error in errors:
        if error not in failures:
            raise error
    if failures:
        raise AttemptFailed(failures)
