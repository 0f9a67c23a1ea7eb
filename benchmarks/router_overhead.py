"""What the router adds: instances without a model answer at once, so that all time is ours.

The client calls the decode instance directly (local prefill, no router) and through the router
(prefill, hand-off and decode), in turn.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from grpc import aio

from benchmarks.client import TIMEOUT_S, generate, random_prompt
from benchmarks.report import milliseconds, print_table, spread
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import decode_pb2, decode_pb2_grpc, router_pb2, router_pb2_grpc, types_pb2

ROOT = Path(__file__).resolve().parent.parent
NULL_INSTANCE = str(ROOT / "tests" / "doubles" / "null_engine.py")
REQUESTS, PROMPT_TOKENS = 300, 128
STREAMS, STREAM_TOKENS = 16, 400


async def run(repeats: int) -> None:
    """Measures time to first token one request at a time, then tokens/s of many streams."""
    rng = random.Random(0)
    ttfts: dict[str, list[float]] = {"own": [], "through": [], "direct": []}
    speeds: dict[str, list[float]] = {"through": [], "direct": []}
    async with _cluster() as (router, decode):
        await _ttft_through(router, rng, 50, {"own": [], "through": []})  # warms up
        for _ in range(repeats):
            await _ttft_through(router, rng, REQUESTS, ttfts)
            await _ttft_direct(decode, rng, REQUESTS, ttfts)
            speeds["through"].append(await _speed(lambda: _stream(router, rng)))
            speeds["direct"].append(await _speed(lambda: _stream_direct(decode, rng)))
    names = {
        "own": "router alone: received to dispatched, and first token out",
        "through": "client, through router and prefill",
        "direct": "client, straight to decode",
    }
    rows = [(text, *milliseconds(ttfts[name], 0.5, 0.9, 0.99)) for name, text in names.items()]
    print_table(
        f"time to first token, ms: {repeats} x {REQUESTS} requests, one at a time, null engine",
        ("path", "p50", "p90", "p99"),
        rows,
    )
    added = [
        1e6 * (1 / a - 1 / b) for a, b in zip(speeds["through"], speeds["direct"], strict=True)
    ]
    print_table(
        f"tokens/s of {STREAMS} streams of {STREAM_TOKENS} tokens, null engine",
        ("through the router", "straight to decode", "added by the router, µs a token"),
        [(spread(speeds["through"], digits=0), spread(speeds["direct"], digits=0), spread(added))],
    )


@asynccontextmanager
async def _cluster() -> AsyncIterator[tuple[aio.Channel, aio.Channel]]:
    """Channels to the router and the decode instance of a null cluster."""
    processes: list[asyncio.subprocess.Process] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            instances = []
            for role in ("prefill", "decode"):
                address = await _start(processes, NULL_INSTANCE, role)
                instances.append({"role": role, "address": address, "name": f"{role}-0"})
            listed = _list(folder, instances)
            router = await _start(processes, "-m", "pdserve", "router", f"--instances={listed}")
            async with open_channel(router) as front, open_channel(instances[1]["address"]) as back:
                await _until_ready(front)
                yield front, back
        finally:
            for process in processes:
                process.terminate()
                await process.wait()


def _list(folder: str, instances: list[dict[str, str]]) -> Path:
    listed = Path(folder, "instances.yaml")
    listed.write_text(yaml.safe_dump({"instances": instances}))
    return listed


async def _start(processes: list[asyncio.subprocess.Process], *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--log-level=error", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    processes.append(process)
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S)).decode()
    return dict(word.split("=", 1) for word in line.split()[1:])["address"]


async def _until_ready(router: aio.Channel) -> None:
    stub = router_pb2_grpc.InferenceStub(router)
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            models = await stub.ListModels(router_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
            if models.models[0].ready:
                return
            await asyncio.sleep(0.05)


async def _ttft_through(
    router: aio.Channel, rng: random.Random, count: int, into: dict[str, list[float]]
) -> None:
    for _ in range(count):
        timeline = await generate(router, random_prompt(rng, PROMPT_TOKENS), 2)
        assert timeline.ledger is not None
        ledger = timeline.ledger
        into["through"].append(timeline.ttft)
        into["own"].append(ledger.router_queue_s + ledger.first_token_out_s)


async def _ttft_direct(
    decode: aio.Channel, rng: random.Random, count: int, into: dict[str, list[float]]
) -> None:
    for number in range(count):
        began = time.perf_counter()
        async for event in _decode(decode, rng, f"ttft-{began}-{number}", 2):
            if event.HasField("tokens"):
                into["direct"].append(time.perf_counter() - began)
                break


def _decode(
    decode: aio.Channel, rng: random.Random, name: str, tokens: int
) -> "aio.UnaryStreamCall[decode_pb2.DecodeRequest, decode_pb2.DecodeEvent]":
    request = decode_pb2.DecodeRequest(
        ref=types_pb2.RequestRef(request_id=name, attempt=1),
        prompt_token_ids=random_prompt(rng, PROMPT_TOKENS),
        sampling=types_pb2.Sampling(temperature=0, max_tokens=tokens, ignore_eos=True),
    )
    return decode_pb2_grpc.DecodeStub(decode).Run(request, timeout=TIMEOUT_S)


async def _stream(router: aio.Channel, rng: random.Random) -> None:
    await generate(router, random_prompt(rng, PROMPT_TOKENS), STREAM_TOKENS)


async def _stream_direct(decode: aio.Channel, rng: random.Random) -> None:
    name = f"stream-{time.perf_counter()}-{rng.random()}"
    async for _ in _decode(decode, rng, name, STREAM_TOKENS):
        pass


async def _speed(stream: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(STREAMS)))
    return STREAMS * STREAM_TOKENS / (time.perf_counter() - began)
