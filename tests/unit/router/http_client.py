"""A client of the HTTP API that hides nothing: bodies, headers and events as they come."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from router_bench import Bench, bench

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]


@dataclass
class Reply:
    status: int
    headers: "aiohttp.typedefs.LooseHeaders"
    text: str

    @property
    def body(self) -> dict:
        return json.loads(self.text)

    @property
    def error(self) -> dict:
        return self.body["error"]

    @property
    def choices(self) -> list[dict]:
        return self.body["choices"]

    @property
    def events(self) -> list[str]:
        """The data of each event; every one is one line and ends with an empty one."""
        assert self.headers["Content-Type"].startswith("text/event-stream")
        assert self.text.endswith("\n\n")
        lines = self.text.removesuffix("\n\n").split("\n\n")
        assert all(line.startswith("data: ") and "\n" not in line for line in lines)
        return [line.removeprefix("data: ") for line in lines]

    @property
    def chunks(self) -> list[dict]:
        """The chunks of a stream that is complete."""
        *chunks, done = self.events
        assert done == "[DONE]"
        return [json.loads(chunk) for chunk in chunks]


class Client:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def post(self, path: str, fields: object, **headers: str) -> Reply:
        """Posts JSON; underscores in names of headers are dashes."""
        return await self.send("POST", path, json.dumps(fields).encode(), **headers)

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.send("GET", path, None, **headers)

    async def send(self, method: str, path: str, body: bytes | None, **headers: str) -> Reply:
        given = {"Content-Type": "application/json"} if body is not None else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, self.url + path, data=body, headers=given) as reply:
            return Reply(reply.status, reply.headers, await reply.text())

    async def complete(self, prompt: object = "hello", **fields: object) -> Reply:
        return await self.post(COMPLETIONS, {"prompt": prompt, "max_tokens": 100} | fields)

    async def chat(self, messages: object = None, **fields: object) -> Reply:
        return await self.post(CHAT, {"messages": messages or HELLO} | fields)


@asynccontextmanager
async def http_bench(**options) -> AsyncIterator[tuple[Bench, Client]]:
    """A bench and a client of its HTTP API."""
    timeout = aiohttp.ClientTimeout(total=20)
    async with bench(**options) as it, aiohttp.ClientSession(timeout=timeout) as session:
        yield it, Client(it.url, session)
