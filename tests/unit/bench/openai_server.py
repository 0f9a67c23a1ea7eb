"""A scripted server of OpenAI's API over real HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

USAGE = {"prompt_tokens": 40, "completion_tokens": 4, "total_tokens": 44}

Answer = Callable[["OpenAiServer", web.Request, dict], Awaitable[web.StreamResponse]]


def text_chunk(text: str, finish: str | None = None, **more: object) -> dict:
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish}]} | more


def chat_chunk(finish: str | None = None, **delta: object) -> dict:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@dataclass
class OpenAiServer:
    """`answer` is what it does with a request, all of which it keeps."""

    answer: Answer
    url: str = ""
    requests: list[dict] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def post(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        async with self.arrived:
            self.requests.append(asked)
            self.headers.append(dict(request.headers))
            self.arrived.notify_all()
        return await self.answer(self, request, asked)

    async def until(self, requests: int) -> None:
        async with self.arrived:
            await asyncio.wait_for(
                self.arrived.wait_for(lambda: len(self.requests) >= requests), 20
            )


async def models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "scripted"}]})


@asynccontextmanager
async def openai_server(answer: Answer, listing=models) -> AsyncIterator[OpenAiServer]:
    server = OpenAiServer(answer)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_get("/v1/models", listing)
    app.router.add_post("/v1/completions", server.post)
    app.router.add_post("/v1/chat/completions", server.post)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


def streaming(*chunks: dict | bytes | str, done: bool = True) -> Answer:
    """Sends these chunks, each in a write of its own; raw bytes as they are."""

    async def answer(_: OpenAiServer, request: web.Request, asked: dict) -> web.StreamResponse:
        return await stream(request, chunks, done)

    return answer


async def stream(
    request: web.Request, chunks: Sequence[dict | bytes | str], done: bool = True
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for chunk in chunks:
        data = chunk if isinstance(chunk, bytes) else f"data: {json.dumps(chunk)}\n\n".encode()
        await response.write(data)
    if done:
        await response.write(b"data: [DONE]\n\n")
    return response


def words(server: OpenAiServer, request: web.Request, asked: dict) -> Awaitable[web.StreamResponse]:
    """As many tokens as were asked for, with the usage of a server that counts words or ids."""
    if "messages" in asked:
        messages = asked["messages"]
        size = 2 + 3 * len(messages) + sum(len(each["content"].split()) for each in messages)
    else:
        prompt = asked["prompt"]
        size = len(prompt.split()) if isinstance(prompt, str) else len(prompt)
    count = asked["max_tokens"]
    usage = {"prompt_tokens": size, "completion_tokens": count}
    if "messages" in asked:
        chunks = [chat_chunk(role="assistant", content="")]
        chunks += [chat_chunk(content=f" a{number}") for number in range(count)]
        chunks += [chat_chunk("length")]
    else:
        chunks = [text_chunk(f" a{number}") for number in range(count)]
        chunks += [text_chunk("", "length")]
    return stream(request, [*chunks, {"choices": [], "usage": usage}])


def refusing(status: int, body: object, **headers: str) -> Answer:
    async def answer(_: OpenAiServer, request: web.Request, asked: dict) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return answer


async def hang(*_: object) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError
