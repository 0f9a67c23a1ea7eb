"""The router as a process: one line when it listens, a clean end on SIGTERM."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import openai
import pytest
from router_bench import write_tiny_model
from router_fakes import ANSWER, FakeDecode, FakePrefill

from pdserve.config import RouterConfig
from pdserve.errors import ConfigError
from pdserve.options import to_flags
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc
from services.router.main import run

PROGRAM = """
import argparse, sys
from pdserve.config import RouterConfig
from pdserve.options import add_options, load
from services.router.main import run
parser = argparse.ArgumentParser()
add_options(parser, RouterConfig)
status = run(load(RouterConfig, parser.parse_args(), {}))
assert "torch" not in sys.modules
sys.exit(status)
"""


async def test_a_router_process_serves_and_ends_cleanly(tmp_path: Path) -> None:
    transfers: dict[str, asyncio.Event] = {}
    fakes = [FakePrefill("p", transfers), FakeDecode("d", transfers)]
    for fake in fakes:
        await fake.start()
    listed = [{"role": fake.role, "address": fake.address.address} for fake in fakes]
    (tmp_path / "instances.yaml").write_text(json.dumps({"instances": listed}))
    model = tmp_path / "tiny"
    model.mkdir()
    write_tiny_model(model)
    config = RouterConfig(model=str(model), instances=str(tmp_path / "instances.yaml"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *to_flags(config), stdout=asyncio.subprocess.PIPE
    )
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().split()
        assert line[:2] == ["ready", "role=router"]
        ready = dict(pair.split("=", 1) for pair in line[1:])
        assert list(ready) == [
            *("role", "name", "address", "metrics", "http", "incarnation", "pid")
        ]
        assert ready["metrics"].startswith("http://127.0.0.1:")
        async with open_channel(ready["address"]) as channel:
            stub = router_pb2_grpc.InferenceStub(channel)
            request = router_pb2.GenerateRequest(prompt="hi")
            events = [event async for event in stub.Generate(request, timeout=20)]
            assert "".join(event.delta.text for event in events) == ANSWER
            async with openai.AsyncOpenAI(base_url=f"{ready['http']}/v1", api_key="-") as client:
                answer = await client.completions.create(model="", prompt="hi", max_tokens=9)
            assert answer.choices[0].text == ANSWER[:9]
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 20) == 0
            assert await process.stdout.read() == b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        for fake in fakes:
            await fake.kill()


def test_a_router_without_instances_says_so() -> None:
    with pytest.raises(ConfigError, match="instances is ''"):
        run(RouterConfig())
