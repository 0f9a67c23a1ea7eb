"""One attempt: both legs side by side, or decode alone, until one of them has the result."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from services.router.decode_leg import DecodeLeg
from services.router.failure import AttemptFailed, InstanceFailure, guard
from services.router.generation import FinishReason
from services.router.handoff import Handoff
from services.router.instance import Instance
from services.router.live import LiveRequest
from services.router.prefill_leg import PrefillLeg
from services.router.releaser import Releaser

_Part = Coroutine[Any, Any, FinishReason | None]


async def run_remote(
    live: LiveRequest, prefill: Instance, decode: Instance, releaser: Releaser
) -> FinishReason:
    """Prefill on one instance, decode on another; returns why the generation ended.

    Raises `AttemptFailed`. Whatever happens, both calls are over at the end and prefill is told to
    free what it may still hold.
    """
    handoff = Handoff()
    first = PrefillLeg(live, prefill, handoff)
    second = DecodeLeg(live, decode, handoff)
    try:
        with (
            prefill.dispatch(live.tokens_to_prefill) as to_prefill,
            decode.dispatch(live.tokens_to_prefill) as to_decode,
        ):
            return await _first_result(
                first.run(to_prefill),
                second.run(to_decode),
                _guard_until_handed_off(prefill, handoff),
                guard(decode),
            )
    finally:
        if first.transfer_id:
            releaser.release(prefill, live.ref(prefill.incarnation), first.transfer_id)


async def run_local(live: LiveRequest, decode: Instance) -> FinishReason:
    """Both phases on one instance; returns why the generation ended. Raises `AttemptFailed`."""
    leg = DecodeLeg(live, decode, Handoff.none())
    with decode.dispatch(live.tokens_to_prefill) as dispatch:
        return await _first_result(leg.run(dispatch), guard(decode))


async def _guard_until_handed_off(prefill: Instance, handoff: Handoff) -> None:
    try:
        await guard(prefill)
    except InstanceFailure:
        if not handoff.done:
            raise


async def _first_result(*parts: _Part) -> FinishReason:
    """What the first part returns that returns anything; ends all of them, whatever happens.

    Raises `AttemptFailed` with the failures of the moment as soon as a part fails.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            # A call ends as if cancelled when its channel closes; the guard then tells why.
            ended = [task for task in done if not task.cancelled()]
            for task in ended:
                if task.exception() is None and (reason := task.result()) is not None:
                    return reason
            _raise_failures([error for task in ended if (error := task.exception())])
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
