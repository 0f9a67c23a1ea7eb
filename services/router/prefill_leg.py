"""The part of an attempt that runs on a prefill instance."""

import time

from grpc import aio

from pdserve.errors import TransferError, UnavailableError
from pdserve.rpc.v1 import prefill_pb2, types_pb2
from services.router.failure import InstanceFailure, rpc_failure
from services.router.generation import FinishReason
from services.router.handoff import Handoff
from services.router.instance import Dispatch, Instance
from services.router.live import LiveRequest
from services.router.output import DiscontinuityError

_PULLED = (
    prefill_pb2.PrefillFinished.OUTCOME_PULLED,
    prefill_pb2.PrefillFinished.OUTCOME_COMPLETE,
)


class PrefillLeg:
    """One `Prefill/Run` call. `transfer_id` names the KV that the instance may still hold."""

    def __init__(self, live: LiveRequest, instance: Instance, handoff: Handoff) -> None:
        self.instance = instance
        self.transfer_id = ""
        self._live = live
        self._handoff = handoff
        self._ref = live.ref(instance.incarnation)

    async def run(self, dispatch: Dispatch) -> FinishReason | None:
        """Returns the reason where the first token ends the generation, None where decode goes on.

        Raises `InstanceFailure`, which matters no more once the hand-off is done.
        """
        call = self.instance.prefill.Run(self._request(), timeout=self._live.remaining_s())
        dispatch.sent()
        try:
            async for event in call:
                if event.HasField("started"):
                    self._on_started(event.started)
                elif event.HasField("first_token"):
                    reason = await self._on_first_token(event.first_token)
                    if reason is not None:
                        return reason
                elif event.HasField("finished"):
                    self._on_finished(event.finished)
                    return None
        except aio.AioRpcError as error:
            raise rpc_failure(self.instance, error) from error
        except DiscontinuityError as error:
            raise self._failure("protocol", str(error)) from error
        finally:
            call.cancel()
        raise self._failure("protocol", "ended its stream early")

    def _on_started(self, started: prefill_pb2.PrefillStarted) -> None:
        self._live.times.started = time.monotonic()
        self._live.attempts[-1].cached_tokens = started.cached_tokens
        self.transfer_id = started.transfer_id
        source = types_pb2.KvSource(
            address=self.instance.address,
            incarnation=self.instance.incarnation,
            transfer_id=started.transfer_id,
        )
        if not self._handoff.source.done():
            self._handoff.source.set_result(source)

    async def _on_first_token(self, first: prefill_pb2.PrefillFirstToken) -> FinishReason | None:
        stopped = await self._live.deliver((first.token,))
        self._handoff.first_token_out.set()
        return stopped or first.finish_reason or None

    def _on_finished(self, finished: prefill_pb2.PrefillFinished) -> None:
        self.transfer_id = ""
        if finished.outcome in _PULLED and self._handoff.first_token_out.is_set():
            return
        outcome = prefill_pb2.PrefillFinished.Outcome.Name(finished.outcome)
        text = f"gave the KV up before decode had it ({outcome})"
        raise InstanceFailure(self.instance, TransferError(text))

    def _failure(self, cause: str, text: str) -> InstanceFailure:
        return InstanceFailure(self.instance, UnavailableError(text), cause)

    def _request(self) -> prefill_pb2.PrefillRequest:
        generation = self._live.generation
        return prefill_pb2.PrefillRequest(
            ref=self._ref,
            prompt_token_ids=generation.prompt_token_ids,
            output_token_ids=self._live.output.token_ids,
            sampling=generation.sampling_message(),
            slo=generation.slo,
            urgency=self._live.urgency(),
        )
