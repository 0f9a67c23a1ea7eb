"""HTTP clients that go away or do not read, and a router that is told to stop."""

import asyncio
import json
import random
import socket

import pytest
from http_client import CHAT, COMPLETIONS, HELLO, http_bench
from router_fakes import ANSWER, OUTPUT, Script, hang

from services.router.http import body, generation


def head_of(path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def raw_request(path: str = COMPLETIONS, **fields: object) -> bytes:
    text = json.dumps({"prompt": "hello", "max_tokens": 60} | fields).encode()
    return head_of(path, len(text)) + text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("role", "step"),
    [("prefill", "queued"), ("prefill", "first_token"), ("decode", "kv_ready"), ("decode", 9)],
)
async def test_a_client_that_goes_away_ends_everything(
    role: str, step: str | int, stream: bool
) -> None:
    async with http_bench() as (it, client):
        fake = {"prefill": it.prefill, "decode": it.decode}[role][0]
        fake.scripts = [Script(before={step: hang}), Script(before={step: hang})]
        asked = it.aside.run(client.complete(n=2, stream=stream))
        await it.until(lambda: fake.running == 2)
        await it.until(lambda: not fake.scripts)
        asked.cancel()
        await it.until_quiet()
        assert it.metric("requests_total", outcome="cancelled") == 2
        assert (await client.complete()).choices[0]["text"] == ANSWER


async def test_clients_that_go_away_at_random_moments_leave_nothing() -> None:
    chance = random.Random(5)
    async with http_bench() as (it, client):

        async def cut(stream: bool, after_s: float) -> None:
            fields = {"messages": HELLO, "stream": stream, "n": chance.randint(1, 3)}
            asking = asyncio.ensure_future(client.post(CHAT, fields))
            await asyncio.wait({asking}, timeout=after_s)
            asking.cancel()
            await asyncio.wait({asking})

        for _ in range(4):
            moments = [(chance.random() < 0.5, chance.random() * 0.1) for _ in range(10)]
            await asyncio.gather(*(cut(stream, after_s) for stream, after_s in moments))
        await it.until_quiet()


async def test_a_connection_that_is_reset_ends_its_request() -> None:
    async with http_bench() as (it, _):
        it.decode[0].scripts = [Script(before={9: hang})]
        with socket.create_connection(("127.0.0.1", it.router.http.port)) as raw:
            raw.sendall(raw_request(stream=True))
            await it.until(lambda: it.decode[0].running == 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await it.until_quiet()


async def test_a_client_that_does_not_read_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(generation, "WRITE_TIMEOUT_S", 0.2)
    async with http_bench() as (it, _):
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            # Connections inherit it; the kernel would take megabytes by itself.
            it.router.http._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            raw.connect(("127.0.0.1", it.router.http.port))
            # Chunks with many logprobs fill what kernel and server buffer; then nothing moves.
            raw.sendall(raw_request(stream=True, n=8, logprobs=3, max_tokens=len(OUTPUT)))
            await it.until(lambda: it.prefill[0].requests)
            await it.until_quiet()
            assert it.metric("requests_total", outcome="cancelled") > 0


async def test_a_body_that_never_comes_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(body, "_BODY_TIMEOUT_S", 0.1)
    async with http_bench() as (it, client):
        reader, writer = await asyncio.open_connection("127.0.0.1", it.router.http.port)
        writer.write(head_of(COMPLETIONS, 100) + b'{"prompt"')
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()
        assert (await client.complete()).status == 200


async def test_half_a_body_and_a_goodbye_leave_nothing() -> None:
    async with http_bench() as (it, client):
        _, writer = await asyncio.open_connection("127.0.0.1", it.router.http.port)
        writer.write(head_of(COMPLETIONS, 100) + b'{"prompt"')
        await writer.drain()
        writer.close()
        assert (await client.complete()).status == 200


async def test_one_connection_serves_one_request_after_another() -> None:
    async with http_bench() as (it, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", it.router.http.port)
        for _ in range(3):
            writer.write(raw_request(max_tokens=3))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            assert json.loads(await reader.readexactly(length))["choices"][0]["text"] == "The"
        writer.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_drain_finishes_what_runs_and_refuses_what_is_new(stream: bool) -> None:
    async with http_bench() as (it, client):
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def pause() -> None:
            reached.set()
            await go_on.wait()

        it.decode[0].scripts = [Script(before={9: pause})]
        running = it.aside.run(client.complete(stream=stream))
        await reached.wait()
        it.stop.set()
        async with asyncio.timeout(20):
            while (await client.get("/ready")).status == 200:
                pass
        reply = await client.complete()
        assert (reply.status, reply.error["code"]) == (503, "unavailable")
        assert "draining" in reply.error["message"]
        go_on.set()
        reply = await running
        choices = [each["choices"][0] for each in reply.chunks] if stream else reply.choices
        assert "".join(choice["text"] for choice in choices) == ANSWER
        await it.served


async def test_what_outlives_the_grace_of_a_drain_is_cut() -> None:
    async with http_bench(drain_grace_s=0.1) as (it, client):
        it.decode[0].scripts = [Script(before={9: hang})]
        running = it.aside.run(client.complete())
        await it.until(lambda: it.decode[0].running == 1)
        it.stop.set()
        await it.served
        await asyncio.wait({running})
        assert running.exception() is not None
        await it.until(lambda: all(fake.running == 0 for fake in it.instances))
