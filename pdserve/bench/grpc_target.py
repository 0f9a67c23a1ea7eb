"""pdserve's router, by gRPC."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from grpc import aio

from pdserve.bench.target import (
    ORDINARY_TOKENS,
    Facts,
    IdPrompt,
    Prompt,
    RequestError,
    Send,
    TokenRange,
)
from pdserve.bench.timeline import Timeline
from pdserve.errors import UnavailableError
from pdserve.rpc.channel import open_channel
from pdserve.rpc.errors import from_rpc_error
from pdserve.rpc.tls import ClientTls
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2

_PREPARE_TIMEOUT_S = 30.0
# Streams of one connection share its flow control and its thread of I/O.
_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class GrpcOptions:
    """How a router is asked. `metadata` goes with every call; `slo` with every request.

    `timeout_s` is the deadline that the router is told.
    """

    address: str
    model: str = ""
    temperature: float = 0.0
    timeout_s: float = 600.0
    metadata: tuple[tuple[str, str], ...] = ()
    slo: types_pb2.Slo | None = None
    tls: ClientTls | None = None


class GrpcTarget:
    """Streams answers of `Inference/Generate`; prompts are token ids. See `Target`."""

    def __init__(self, options: GrpcOptions) -> None:
        self._options = options
        self._channels: Sequence[aio.Channel] = ()
        self._stubs: Sequence[router_pb2_grpc.InferenceAsyncStub] = ()
        self._sent = 0

    @property
    def name(self) -> str:
        """The address."""
        return self._options.address

    async def prepare(self) -> Facts:
        """See `Target.prepare`: the model and its vocabulary."""
        self._channels = [open_channel(self.name, self._options.tls) for _ in range(_CHANNELS)]
        self._stubs = [router_pb2_grpc.InferenceStub(channel) for channel in self._channels]
        try:
            listed = await self._stubs[0].ListModels(
                router_pb2.ListModelsRequest(),
                timeout=_PREPARE_TIMEOUT_S,
                metadata=self._options.metadata,
            )
        except aio.AioRpcError as error:
            kind = type(from_rpc_error(error))
            raise kind(f"{self.name}: {_reason(error)}") from error
        if not listed.models:
            raise UnavailableError(f"{self.name}: it serves no model")
        model = listed.models[0]
        high = min(ORDINARY_TOKENS.high, model.vocab_size * 15 // 16)
        tokens = TokenRange(min(ORDINARY_TOKENS.low, high // 2), high)
        return Facts(self._options.model or model.id, tokens)

    def request(self, prompt: Prompt, output_tokens: int) -> Send:
        """See `Target.request`."""
        assert isinstance(prompt, IdPrompt)
        request = router_pb2.GenerateRequest(
            model=self._options.model,
            token_ids=router_pb2.TokenIds(ids=prompt.ids),
            sampling=types_pb2.Sampling(
                temperature=self._options.temperature,
                max_tokens=output_tokens,
                min_tokens=output_tokens,
                ignore_eos=True,
            ),
            slo=self._options.slo,
        )

        async def send(timeline: Timeline) -> None:
            await self._send(request, timeline)

        return send

    async def close(self) -> None:
        """See `Target.close`."""
        for channel in self._channels:
            await channel.close()
        self._channels = self._stubs = ()

    async def _send(self, request: router_pb2.GenerateRequest, timeline: Timeline) -> None:
        self._sent += 1
        stub = self._stubs[self._sent % len(self._stubs)]
        options = self._options
        call = stub.Generate(request, timeout=options.timeout_s, metadata=options.metadata)
        try:
            async for event in call:
                now = time.perf_counter()
                if tokens := event.delta.tokens:
                    timeline.chunk(now, "", len(tokens), [token.id for token in tokens])
                if event.HasField("finished"):
                    done = event.finished
                    timeline.usage(done.prompt_tokens, done.output_tokens, done.cached_tokens)
        except aio.AioRpcError as error:
            raise _refusal(error) from error
        finally:
            # Not every await inside the call ends it when the task is cancelled.
            call.cancel()
        if timeline.output_tokens is None:
            raise RequestError("failed", "cut off")


def _refusal(error: aio.AioRpcError) -> RequestError:
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return RequestError("rejected", "RESOURCE_EXHAUSTED")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RequestError("timeout", "DEADLINE_EXCEEDED")
    return RequestError("failed", _reason(error))


def _reason(error: aio.AioRpcError) -> str:
    details = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE and "failed to connect" in details:
        return "UNAVAILABLE: connection refused"
    return f"{error.code().name}: {details[:200]}"
