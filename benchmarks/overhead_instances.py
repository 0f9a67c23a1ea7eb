"""Null instances of pdserve: `python -m benchmarks.overhead_instances` runs one of each phase.

They speak the whole protocol and compute nothing: prefill has the first token at once, decode has
all others at once or at the request's pace, a message for each token. Messages are laid together
from parts that are serialized once, so that as little time as possible is the instances'.
"""

import asyncio
import os
import secrets
from itertools import count
from typing import Any

import grpc
from grpc import aio

from benchmarks.overhead_pace import Pace
from pdserve.rpc.v1 import decode_pb2, prefill_pb2, types_pb2

MODEL = "smollm2-135m-instruct"
# Ordinary words of the model's vocabulary.
FIRST_TOKEN, TOKENS = 1000, 20_000
_LAYOUT = types_pb2.KvLayout(
    fingerprint="null",
    dtype="float32",
    layers=1,
    kv_heads=1,
    head_dim=1,
    block_size=16,
    tp=1,
    pp=1,
)


def token(index: int) -> types_pb2.Token:
    """The token that every output has at `index`."""
    return types_pb2.Token(id=FIRST_TOKEN + index % TOKENS, index=index)


class NullInstance:
    """What both phases share: reports that never change but for their time."""

    def __init__(self, role: str) -> None:
        self.incarnation = secrets.token_hex(8)
        self._report = types_pb2.LoadReport(
            info=types_pb2.InstanceInfo(
                name=f"{role}-0",
                role=types_pb2.Role.Value(f"ROLE_{role.upper()}"),
                incarnation=self.incarnation,
                model=MODEL,
                layout=_LAYOUT,
                max_model_len=8192,
                max_batch_tokens=8192,
                max_batch_seqs=1024,
                layer_groups=1,
            ),
            blocks=types_pb2.BlockCounts(free=100_000),
        )

    async def watch_load(self, request: types_pb2.WatchLoadRequest, context: Any) -> None:
        """Reports every interval."""
        while True:
            await context.write(self._report.SerializeToString())
            await asyncio.sleep(request.interval_s or 1.0)

    def ref(self, request: Any) -> bytes:
        """The part of an event that says whose it is."""
        ref = types_pb2.RequestRef(
            request_id=request.ref.request_id,
            attempt=request.ref.attempt,
            incarnation=self.incarnation,
        )
        return prefill_pb2.PrefillEvent(ref=ref).SerializeToString()


class NullPrefill(NullInstance):
    """Has the first token at once, and holds KV until it is pulled."""

    def __init__(self, pulled: dict[str, asyncio.Event]) -> None:
        super().__init__("prefill")
        self._pulled = pulled
        self._numbers = count(1)
        first = prefill_pb2.PrefillFirstToken(token=token(0))
        self._first = prefill_pb2.PrefillEvent(first_token=first).SerializeToString()
        first.finish_reason = types_pb2.FINISH_REASON_LENGTH
        self._only = prefill_pb2.PrefillEvent(first_token=first).SerializeToString()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The methods of the service."""
        return grpc.method_handlers_generic_handler(
            "pdserve.v1.Prefill",
            {
                "Run": _streaming(self._run, prefill_pb2.PrefillRequest),
                "Release": grpc.unary_unary_rpc_method_handler(_release),
                "WatchLoad": _streaming(self.watch_load, types_pb2.WatchLoadRequest),
            },
        )

    async def _run(self, request: prefill_pb2.PrefillRequest, context: Any) -> None:
        ref = self.ref(request)
        transfer_id = f"null-{next(self._numbers)}"
        started = prefill_pb2.PrefillStarted(transfer_id=transfer_id)
        started_event = prefill_pb2.PrefillEvent(started=started).SerializeToString()
        if request.sampling.max_tokens == 1:
            await context.write(ref + started_event)
            await context.write(ref + self._only)
            await context.write(ref + _finished(prefill_pb2.PrefillFinished.OUTCOME_COMPLETE))
            return
        pulled = self._pulled[transfer_id] = asyncio.Event()
        try:
            await context.write(ref + started_event)
            await context.write(ref + self._first)
            await pulled.wait()
            await context.write(ref + _finished(prefill_pb2.PrefillFinished.OUTCOME_PULLED))
        finally:
            del self._pulled[transfer_id]


class NullDecode(NullInstance):
    """Pulls, so to say, and has every further token at once or at the request's pace."""

    def __init__(self, pulled: dict[str, asyncio.Event]) -> None:
        super().__init__("decode")
        self._pulled = pulled
        self._pace = Pace()
        self._tokens: list[bytes] = []
        admitted = decode_pb2.DecodeEvent(admitted=decode_pb2.DecodeAdmitted())
        ready = decode_pb2.DecodeEvent(kv_ready=decode_pb2.DecodeKvReady())
        self._admitted, self._kv_ready = admitted.SerializeToString(), ready.SerializeToString()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The methods of the service."""
        return grpc.method_handlers_generic_handler(
            "pdserve.v1.Decode",
            {
                "Run": _streaming(self._run, decode_pb2.DecodeRequest),
                "WatchLoad": _streaming(self.watch_load, types_pb2.WatchLoadRequest),
            },
        )

    async def _run(self, request: decode_pb2.DecodeRequest, context: Any) -> None:
        ref = self.ref(request)
        await context.write(ref + self._admitted)
        first = len(request.output_token_ids)
        if request.HasField("kv_source"):
            first += 1
            if pulled := self._pulled.get(request.kv_source.transfer_id):
                pulled.set()
            await context.write(ref + self._kv_ready)
        seed, last = request.sampling.seed, request.sampling.max_tokens
        for index in range(first, last):
            await self._pace.wait(seed)
            await context.write(ref + self._token(index))
        finished = decode_pb2.DecodeFinished(
            reason=types_pb2.FINISH_REASON_LENGTH, output_tokens=last
        )
        event = decode_pb2.DecodeEvent(finished=finished)
        await context.write(ref + event.SerializeToString())

    def _token(self, index: int) -> bytes:
        while len(self._tokens) <= index:
            tokens = decode_pb2.DecodeTokens(tokens=[token(len(self._tokens))])
            self._tokens.append(decode_pb2.DecodeEvent(tokens=tokens).SerializeToString())
        return self._tokens[index]


def _streaming(method: Any, request: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    # Responses are bytes already.
    return grpc.unary_stream_rpc_method_handler(method, request_deserializer=request.FromString)


def _finished(outcome: "prefill_pb2.PrefillFinished.Outcome.ValueType") -> bytes:
    finished = prefill_pb2.PrefillFinished(outcome=outcome)
    return prefill_pb2.PrefillEvent(finished=finished).SerializeToString()


async def _release(_: bytes, __: Any) -> bytes:
    return prefill_pb2.ReleaseResponse().SerializeToString()


async def main() -> None:
    """Serves until the process is ended; prints where, once it does."""
    pulled: dict[str, asyncio.Event] = {}
    servers, addresses = [], {}
    for role, instance in {"prefill": NullPrefill(pulled), "decode": NullDecode(pulled)}.items():
        server = aio.server()
        server.add_generic_rpc_handlers((instance.handlers(),))
        addresses[role] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        servers.append(server)
    print(f"ready {addresses['prefill']} {addresses['decode']} pid={os.getpid()}", flush=True)
    await asyncio.gather(*(server.wait_for_termination() for server in servers))


if __name__ == "__main__":
    asyncio.run(main())
