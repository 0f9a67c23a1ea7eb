"""Clients that know what they must be answered, and note when each token came."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from grpc import aio

from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2
from tests.doubles.context_engine import continuation
from tests.integration.harness import by_ids, greedy

TIMEOUT_S = 60.0
PROMPT_TOKENS, NEW_TOKENS = (48, 160), (16, 40)


@dataclass(slots=True)
class Stream:
    """One request and what came of it; moments are on the monotonic clock."""

    prompt: list[int]
    new_tokens: int
    sent_at: float = 0.0
    ended_at: float = 0.0
    ids: list[int] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    error: aio.AioRpcError | None = None
    attempts: list[types_pb2.Attempt] = field(default_factory=list)

    @property
    def expected(self) -> list[int]:
        """The only right answer."""
        return continuation(self.prompt, self.new_tokens)

    @property
    def disturbed(self) -> bool:
        """Whether it needed more than one attempt."""
        return len(self.attempts) > 1

    def under_way_at(self, moment: float) -> bool:
        """Whether it ran at the moment."""
        return self.sent_at <= moment < self.ended_at

    def pause_after(self, moment: float) -> float:
        """The longest time without a token from the moment on, until the last or the end."""
        times = [moment, *(at for at in self.arrivals if at > moment)]
        if self.error is not None or len(times) == 1:
            times.append(self.ended_at)
        return max(late - early for early, late in pairwise(times))


class Load:
    """Each of `clients` sends one request after the other over the channel, until `enough`."""

    def __init__(self, channel: aio.Channel, clients: int, rng: random.Random) -> None:
        self.streams: list[Stream] = []
        self._stub = router_pb2_grpc.InferenceStub(channel)
        self._clients = clients
        self._rng = rng
        self._enough = False

    def errors(self) -> list[str]:
        """What went wrong, in words."""
        return [str(each.error.details()) for each in self.streams if each.error]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs while the context does; leaving it waits until every stream has ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(self._client())
            try:
                yield
            finally:
                self._enough = True

    async def ask(self) -> Stream:
        """One request, read to its end."""
        stream = self._draw()
        self.streams.append(stream)
        await self._follow(stream)
        return stream

    async def _client(self) -> None:
        while not self._enough:
            if (await self.ask()).error is not None:
                return  # its router has gone

    def _draw(self) -> Stream:
        prompt = [
            self._rng.randrange(1000, 40000) for _ in range(self._rng.randint(*PROMPT_TOKENS))
        ]
        return Stream(prompt, self._rng.randint(*NEW_TOKENS))

    async def _follow(self, stream: Stream) -> None:
        request = by_ids(stream.prompt, greedy(stream.new_tokens, ignore_eos=True))
        stream.sent_at = time.monotonic()
        try:
            async for event in self._stub.Generate(request, timeout=TIMEOUT_S):
                self._note(stream, event)
        except aio.AioRpcError as error:
            stream.error = error
        stream.ended_at = time.monotonic()

    def _note(self, stream: Stream, event: router_pb2.GenerateEvent) -> None:
        if event.HasField("finished"):
            stream.attempts = list(event.finished.attempts)
        for token in event.delta.tokens:
            assert token.index == len(stream.ids), "a token is missing or came twice"
            stream.ids.append(token.id)
            stream.arrivals.append(time.monotonic())
