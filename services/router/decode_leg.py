"""The part of an attempt that runs on a decode instance."""

import time

from grpc import aio

from pdserve.errors import UnavailableError
from pdserve.rpc.v1 import decode_pb2, types_pb2
from services.router.failure import InstanceFailure, rpc_failure
from services.router.generation import FinishReason
from services.router.handoff import Handoff
from services.router.instance import Dispatch, Instance
from services.router.live import LiveRequest
from services.router.output import DiscontinuityError


class DecodeLeg:
    """One `Decode/Run` call, opened when the hand-off's source is known."""

    def __init__(self, live: LiveRequest, instance: Instance, handoff: Handoff) -> None:
        self.instance = instance
        self._live = live
        self._handoff = handoff
        self._ref = live.ref(instance.incarnation)

    async def run(self, dispatch: Dispatch) -> FinishReason:
        """Delivers tokens until the generation ends; returns why. Raises `InstanceFailure`."""
        return await self._follow(self._request(await self._handoff.source), dispatch)

    async def _follow(self, request: decode_pb2.DecodeRequest, dispatch: Dispatch) -> FinishReason:
        call = self.instance.decode.Run(request, timeout=self._live.remaining_s())
        dispatch.sent()
        try:
            async for event in call:
                reason = await self._on_event(event)
                if reason is not None:
                    return reason
        except aio.AioRpcError as error:
            raise rpc_failure(self.instance, error) from error
        except DiscontinuityError as error:
            raise self._failure(str(error)) from error
        finally:
            call.cancel()
        raise self._failure("ended its stream early")

    async def _on_event(self, event: decode_pb2.DecodeEvent) -> FinishReason | None:
        # Tokens first: of all other events there is one a request.
        if event.HasField("tokens"):
            await self._handoff.first_token_out.wait()
            return await self._live.deliver(event.tokens.tokens)
        if event.HasField("admitted"):
            self._on_admitted(event.admitted)
        elif event.HasField("kv_ready"):
            self._on_kv_ready(event.kv_ready)
        elif event.HasField("finished"):
            await self._handoff.first_token_out.wait()
            return self._on_finished(event.finished)
        return None

    def _on_admitted(self, admitted: decode_pb2.DecodeAdmitted) -> None:
        if self._handoff.source.result() is None:
            self._live.times.started = time.monotonic()
            self._live.attempts[-1].cached_tokens = admitted.cached_tokens
        else:
            self._live.times.admitted = time.monotonic()

    def _on_kv_ready(self, kv_ready: decode_pb2.DecodeKvReady) -> None:
        times = self._live.times
        times.kv_ready = time.monotonic()
        times.transfer_s = kv_ready.transfer_s
        times.transfer_bytes = kv_ready.bytes
        self._handoff.land()
        source = self._handoff.source.result()
        if source is not None:
            self.instance.knowledge.links.observe(
                source.incarnation, self.instance.incarnation, kv_ready.bytes, kv_ready.link_s
            )

    def _on_finished(self, finished: decode_pb2.DecodeFinished) -> FinishReason:
        have = len(self._live.output.token_ids)
        if finished.output_tokens != have:
            raise self._failure(f"finished after {finished.output_tokens} tokens; {have} came")
        if not finished.reason:
            raise self._failure("finished without a reason")
        return finished.reason

    def _failure(self, text: str) -> InstanceFailure:
        return InstanceFailure(self.instance, UnavailableError(text), "protocol")

    def _request(self, source: types_pb2.KvSource | None) -> decode_pb2.DecodeRequest:
        generation = self._live.generation
        return decode_pb2.DecodeRequest(
            ref=self._ref,
            prompt_token_ids=generation.prompt_token_ids,
            output_token_ids=self._live.output.token_ids,
            sampling=generation.sampling_message(),
            slo=generation.slo,
            kv_source=source,
            urgency=self._live.urgency(),
        )
