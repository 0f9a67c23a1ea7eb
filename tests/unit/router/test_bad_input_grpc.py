"""Whatever a gRPC client sends or leaves out: a status that tells, and nothing is left."""

import asyncio
import math
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc import aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from router_bench import Bench, bench

from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import router_pb2, types_pb2

SERVICE = "/pdserve.v1.Inference"
EXAMPLES = 100
# What a client may be told of its own request; UNKNOWN and INTERNAL are the server's own faults.
CLEAR = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}
VALID = router_pb2.GenerateRequest(
    ref=types_pb2.RequestRef(request_id="r"),
    model="tiny",
    prompt="hello",
    sampling=types_pb2.Sampling(
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        logit_bias={5: 1.0},
        seed=7,
        stop_token_ids=[9],
        max_tokens=3,
        logprobs=2,
    ),
    stop=["zzz"],
    slo=types_pb2.Slo(ttft_ms=500, tpot_ms=50),
    priority=types_pb2.PRIORITY_LOW,
)

FLOATS = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, -0.0])
COUNTS = st.integers(0, 2**32 - 1) | st.integers(0, 300)
LONG = st.integers(0, 30_000).map(lambda length: "x" * length)
TEXTS = st.text(max_size=20) | st.sampled_from(["tiny", "user", "\x00"]) | LONG


def maybe(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | values


SAMPLINGS = st.builds(
    types_pb2.Sampling,
    temperature=maybe(FLOATS),
    top_k=COUNTS,
    top_p=maybe(FLOATS),
    min_p=FLOATS,
    repetition_penalty=maybe(FLOATS),
    presence_penalty=FLOATS,
    frequency_penalty=FLOATS,
    logit_bias=st.dictionaries(COUNTS, FLOATS, max_size=3),
    seed=maybe(st.integers(0, 2**64 - 1)),
    stop_token_ids=st.lists(COUNTS, max_size=3),
    ignore_eos=st.booleans(),
    min_tokens=COUNTS,
    max_tokens=maybe(COUNTS),
    logprobs=maybe(COUNTS),
)
MESSAGES = st.builds(router_pb2.ChatMessage, role=TEXTS, content=TEXTS)
INPUTS = st.one_of(
    st.just({}),
    st.builds(lambda text: {"prompt": text}, TEXTS),
    st.builds(lambda ids: {"token_ids": router_pb2.TokenIds(ids=ids)}, st.lists(COUNTS)),
    st.builds(
        lambda messages: {"chat": router_pb2.Chat(messages=messages)},
        st.lists(MESSAGES, max_size=3),
    ),
)
REQUESTS = st.builds(
    lambda fields, inputs: router_pb2.GenerateRequest(**fields, **inputs),
    st.fixed_dictionaries(
        {},
        optional={
            "ref": st.builds(types_pb2.RequestRef, request_id=TEXTS, attempt=COUNTS),
            "model": TEXTS,
            "sampling": SAMPLINGS,
            "stop": st.lists(TEXTS, max_size=18),
            "slo": st.builds(
                types_pb2.Slo, ttft_ms=maybe(FLOATS), tpot_ms=maybe(FLOATS), hard=st.booleans()
            ),
            "priority": st.integers(-(2**31), 2**31 - 1),
        },
    ),
    INPUTS,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The bytes of a valid request, with a piece cut out, put in or changed."""
    whole = VALID.SerializeToString()
    begin = draw(st.integers(0, len(whole)))
    end = draw(st.integers(begin, min(len(whole), begin + 8)))
    return whole[:begin] + draw(st.binary(max_size=8)) + whole[end:]


class Wire:
    """Calls with bytes instead of messages."""

    def __init__(self, it: Bench, channel: aio.Channel) -> None:
        self.it = it
        self._channel = channel

    async def generate(self, data: bytes, timeout_s: float = 20.0) -> grpc.StatusCode:
        """How the call ended."""
        call = self._channel.unary_stream(f"{SERVICE}/Generate")(data, timeout=timeout_s)
        return await self._code(call)

    async def ask(self, method: str, data: bytes) -> grpc.StatusCode:
        """How a call of a method that answers once ended."""
        call = self._channel.unary_unary(f"{SERVICE}/{method}")(data, timeout=20.0)
        try:
            await call
        except aio.AioRpcError as error:
            return error.code()
        return await call.code()

    async def _code(self, call: aio.UnaryStreamCall) -> grpc.StatusCode:
        try:
            async for _ in call:
                pass
        except aio.AioRpcError as error:
            return error.code()
        return await call.code()


@pytest.fixture(scope="module")
def loop_runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def wire(loop_runner):
    """One router for all examples; it checks at the end that nothing is left."""

    async def opened() -> AsyncIterator[Wire]:
        async with bench() as it, open_channel(it.router.address) as channel:
            yield Wire(it, channel)

    life = opened()
    yield loop_runner.run(anext(life))
    with pytest.raises(StopAsyncIteration):
        loop_runner.run(anext(life))


quickly = settings(
    max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quickly
@given(data=st.binary(max_size=100))
def test_any_bytes(loop_runner: asyncio.Runner, wire: Wire, data: bytes) -> None:
    assert loop_runner.run(wire.generate(data)) in CLEAR


@quickly
@given(data=damaged())
def test_a_damaged_request(loop_runner: asyncio.Runner, wire: Wire, data: bytes) -> None:
    assert loop_runner.run(wire.generate(data)) in CLEAR


@quickly
@given(request=REQUESTS)
def test_any_request(loop_runner: asyncio.Runner, wire: Wire, request) -> None:
    assert loop_runner.run(wire.generate(request.SerializeToString())) in CLEAR


@quickly
@given(method=st.sampled_from(["ListModels", "GetCluster", "Explain"]), data=st.binary(max_size=40))
def test_any_bytes_to_the_other_methods(
    loop_runner: asyncio.Runner, wire: Wire, method: str, data: bytes
) -> None:
    assert loop_runner.run(wire.ask(method, data)) in CLEAR


@quickly
@given(timeout_s=st.floats(0, 0.02), moment=st.none() | st.floats(0, 0.02))
def test_calls_that_end_at_once(
    loop_runner: asyncio.Runner, wire: Wire, timeout_s: float, moment: float | None
) -> None:
    """Deadlines that have as good as passed, and clients that go before there is an answer."""

    async def hurry() -> None:
        call = asyncio.create_task(wire.generate(VALID.SerializeToString(), timeout_s))
        if moment is not None:
            await asyncio.sleep(moment)
            call.cancel()
        codes = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(codes[0], asyncio.CancelledError) or codes[0] in CLEAR
        await wire.it.until_quiet()

    loop_runner.run(hurry())


def test_unknown_fields_and_text_that_is_no_utf8(loop_runner: asyncio.Runner, wire: Wire) -> None:
    unknown = bytes([0xF2, 0x3F, 3]) + b"abc"  # field 1022
    valid = VALID.SerializeToString()
    assert loop_runner.run(wire.generate(valid + unknown)) is grpc.StatusCode.OK
    broken = valid.replace(b"hello", b"\xff\xfe\xc3(\xa0")
    assert loop_runner.run(wire.generate(broken)) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_prompt_of_a_million_tokens(loop_runner: asyncio.Runner, wire: Wire) -> None:
    ids = router_pb2.GenerateRequest(token_ids=router_pb2.TokenIds(ids=[1] * 1_000_000))
    code = loop_runner.run(wire.generate(ids.SerializeToString()))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
