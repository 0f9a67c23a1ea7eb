"""Prefill and decode instances without an engine: real gRPC servers that follow a script."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.rpc.errors import servicer_method
from pdserve.rpc.server import RpcServer
from pdserve.rpc.tls_identity import TlsIdentity
from pdserve.rpc.v1 import decode_pb2, decode_pb2_grpc, prefill_pb2, prefill_pb2_grpc, types_pb2

# The one output of the fake model, a token a byte; the token after it is the end token.
ANSWER = "The quick brown fox jumps over the lazy dog; it costs 3 €."
EOS = 256
OUTPUT = [*ANSWER.encode(), EOS]

LAYOUT = types_pb2.KvLayout(
    fingerprint="f", dtype="float32", layers=2, kv_heads=1, head_dim=4, block_size=16, tp=1, pp=1
)

Action = Callable[[], Awaitable[None]]


@dataclass
class Script:
    """What one call does differently. `before` runs actions before a step; an action may raise.

    Steps are "queued", "started", "first_token" and "finished" on prefill; "queued", "admitted",
    "kv_ready", the index of a token, and "finished" on decode. `mangle` turns the tokens that
    decode would send, (index, id) in messages, into those that it does send.
    """

    before: dict[str | int, Action] = field(default_factory=dict)
    mangle: Callable[[list[list[tuple[int, int]]]], list[list[tuple[int, int]]]] = lambda it: it
    outcome: "prefill_pb2.PrefillFinished.Outcome.ValueType" = (
        prefill_pb2.PrefillFinished.OUTCOME_PULLED
    )
    # Tokens a message of decode.
    batch: int = 1


def raising(error: Exception) -> Action:
    async def action() -> None:
        raise error

    return action


async def hang() -> None:
    await asyncio.Event().wait()


def token(index: int, token_id: int, sampling: types_pb2.Sampling) -> types_pb2.Token:
    """A token, with made-up logprobs where they are asked for: the second best cannot be."""
    if not sampling.HasField("logprobs"):
        return types_pb2.Token(id=token_id, index=index)
    ranked = [(token_id, -0.5), (ord("!"), float("-inf")), (0xE2, -3.0)]
    top = [
        types_pb2.TopLogprob(token_id=each, logprob=logprob)
        for each, logprob in ranked[: sampling.logprobs]
    ]
    return types_pb2.Token(id=token_id, index=index, logprob=-0.5, top_logprobs=top)


def token_at(index: int) -> int:
    return OUTPUT[min(index, len(OUTPUT) - 1)]


def reason_at(index: int, sampling: types_pb2.Sampling) -> "types_pb2.FinishReason.ValueType":
    """Why the output ends with the token `index`; 0 where it does not."""
    token_id = token_at(index)
    ends = (token_id == EOS and not sampling.ignore_eos) or token_id in sampling.stop_token_ids
    if ends and index >= sampling.min_tokens:
        return types_pb2.FINISH_REASON_STOP
    if index + 1 >= sampling.max_tokens:
        return types_pb2.FINISH_REASON_LENGTH
    return types_pb2.FINISH_REASON_UNSPECIFIED


class FakeInstance:
    """What both fakes share: scripts, reports, one life after another on the same port."""

    def __init__(self, role: Role, name: str, transfers: dict[str, asyncio.Event]) -> None:
        self.role = role
        self.name = name
        self.transfers = transfers
        self.report = types_pb2.LoadReport(
            info=types_pb2.InstanceInfo(
                name=name,
                model="tiny",
                role=types_pb2.ROLE_PREFILL if role is Role.PREFILL else types_pb2.ROLE_DECODE,
                layout=LAYOUT,
                max_model_len=200,
            )
        )
        self.scripts: list[Script] = []
        self.requests: list[prefill_pb2.PrefillRequest | decode_pb2.DecodeRequest] = []
        # How long each call might take when it came, in seconds; None: for ever.
        self.deadlines: list[float | None] = []
        self.released: list[prefill_pb2.ReleaseRequest] = []
        self.running = 0
        self.watchers = 0
        self.watches = 0
        self.port = 0
        self.tls: TlsIdentity | None = None
        # Cleared: the process is stopped, as by SIGSTOP.
        self.awake = asyncio.Event()
        self.awake.set()
        self._changed = asyncio.Event()
        self._server: RpcServer | None = None

    @property
    def address(self) -> InstanceAddress:
        return InstanceAddress(self.role, f"127.0.0.1:{self.port}", self.name)

    async def start(self) -> None:
        """Begins a new life, on the port of the last one."""
        self.report.info.incarnation = secrets.token_hex(4)
        self._server = RpcServer("127.0.0.1", self.port, [], self.tls)
        if self.role is Role.PREFILL:
            add = prefill_pb2_grpc.add_PrefillServicer_to_server
        else:
            add = decode_pb2_grpc.add_DecodeServicer_to_server
        self._server.register(add, self)
        await self._server.start()
        self.port = self._server.port

    async def kill(self) -> None:
        """Ends at once, with everything that runs."""
        if self._server:
            await self._server.stop(0)
            self._server = None

    def publish(self, **changes: object) -> None:
        """Changes the report, and sends it to whoever watches."""
        for name, value in changes.items():
            setattr(self.report, name, value)
        self._changed.set()
        self._changed = asyncio.Event()

    @servicer_method
    async def WatchLoad(self, request: types_pb2.WatchLoadRequest, context) -> None:  # noqa: N802
        self.watchers += 1
        self.watches += 1
        try:
            while True:
                changed = self._changed
                await self.awake.wait()
                await context.write(self.report)
                try:
                    async with asyncio.timeout(request.interval_s):
                        await changed.wait()
                except TimeoutError:
                    pass
        finally:
            self.watchers -= 1

    @contextmanager
    def call(self, request, context):
        self.requests.append(request)
        self.deadlines.append(context.time_remaining())
        self.running += 1
        try:
            yield self.scripts.pop(0) if self.scripts else Script()
        finally:
            self.running -= 1

    async def step(self, script: Script, name: str | int) -> None:
        await self.awake.wait()
        if action := script.before.get(name):
            await action()
            await self.awake.wait()

    def ref(self, request) -> types_pb2.RequestRef:
        ref = types_pb2.RequestRef()
        ref.CopyFrom(request.ref)
        ref.incarnation = self.report.info.incarnation
        return ref


class FakePrefill(FakeInstance, prefill_pb2_grpc.PrefillServicer):
    """Samples the first token; holds the "KV" until a fake decode has pulled it."""

    def __init__(self, name: str, transfers: dict[str, asyncio.Event]) -> None:
        super().__init__(Role.PREFILL, name, transfers)
        self._numbers = count(1)

    @servicer_method
    async def Run(self, request: prefill_pb2.PrefillRequest, context) -> None:  # noqa: N802
        ref = self.ref(request)
        with self.call(request, context) as script:
            await self.step(script, "queued")
            transfer_id = f"{self.name}/{ref.incarnation}/{next(self._numbers)}"
            pulled = self.transfers[transfer_id] = asyncio.Event()
            await self.step(script, "started")
            started = prefill_pb2.PrefillStarted(transfer_id=transfer_id, cached_tokens=3)
            await context.write(prefill_pb2.PrefillEvent(ref=ref, started=started))
            await self.step(script, "first_token")
            first = self._first_token(request)
            await context.write(prefill_pb2.PrefillEvent(ref=ref, first_token=first))
            if not first.finish_reason and script.outcome in (
                prefill_pb2.PrefillFinished.OUTCOME_PULLED,
            ):
                await pulled.wait()
            await self.step(script, "finished")
            finished = prefill_pb2.PrefillFinished(outcome=script.outcome)
            await context.write(prefill_pb2.PrefillEvent(ref=ref, finished=finished))

    @servicer_method
    async def Release(self, request: prefill_pb2.ReleaseRequest, context):  # noqa: N802
        self.released.append(request)
        self.deadlines.append(context.time_remaining())
        return prefill_pb2.ReleaseResponse(ref=request.ref, released=True)

    def _first_token(self, request: prefill_pb2.PrefillRequest) -> prefill_pb2.PrefillFirstToken:
        index = len(request.output_token_ids)
        return prefill_pb2.PrefillFirstToken(
            token=token(index, token_at(index), request.sampling),
            finish_reason=reason_at(index, request.sampling),
        )


class FakeDecode(FakeInstance, decode_pb2_grpc.DecodeServicer):
    """Pulls, so to say; then sends the rest of the one output."""

    def __init__(self, name: str, transfers: dict[str, asyncio.Event]) -> None:
        super().__init__(Role.DECODE, name, transfers)

    @servicer_method
    async def Run(self, request: decode_pb2.DecodeRequest, context) -> None:  # noqa: N802
        ref = self.ref(request)
        remote = request.HasField("kv_source")

        async def send(**event: object) -> None:
            await context.write(decode_pb2.DecodeEvent(ref=ref, **event))

        with self.call(request, context) as script:
            await self.step(script, "queued")
            await self.step(script, "admitted")
            await send(admitted=decode_pb2.DecodeAdmitted(cached_tokens=5))
            if remote:
                await self.step(script, "kv_ready")
                self.transfers[request.kv_source.transfer_id].set()
                await send(
                    kv_ready=decode_pb2.DecodeKvReady(transfer_s=0.001, bytes=4096, link_s=0.001)
                )
            indices, reason = _rest(request, remote)
            for message in script.mangle(_batched(indices, script.batch)):
                await self.step(script, message[0][0])
                tokens = [token(index, token_id, request.sampling) for index, token_id in message]
                await send(tokens=decode_pb2.DecodeTokens(tokens=tokens))
            await self.step(script, "finished")
            finished = decode_pb2.DecodeFinished(
                reason=reason, output_tokens=(indices[-1] if indices else 0) + 1
            )
            await send(finished=finished)


def _rest(request: decode_pb2.DecodeRequest, remote: bool):
    """The indices that decode has to send, and why it ends after them."""
    index = len(request.output_token_ids) + (1 if remote else 0)
    indices = []
    while True:
        indices.append(index)
        if reason := reason_at(index, request.sampling):
            return indices, reason
        index += 1


def _batched(indices: list[int], size: int) -> list[list[tuple[int, int]]]:
    pairs = [(index, token_at(index)) for index in indices]
    return [pairs[begin : begin + size] for begin in range(0, len(pairs), size)]
