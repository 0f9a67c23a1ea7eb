"""The load of the soak: requests at a rate, some cancelled, each one accounted for."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc
from grpc import aio

from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2

TIMEOUT_S = 120.0
# A share of the clients goes away, within so many seconds.
CANCELLED, CANCEL_WITHIN_S = 0.1, 0.5
# Beyond these, a client waits: the generator must not be what falls over.
_MOST_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt and the only right answer to it."""

    prompt: Sequence[int]
    answer: Sequence[int]


class Questions(Protocol):
    """Where prompts come from."""

    def draw(self, rng: random.Random) -> Question:
        """The next one."""
        ...


class Account:
    """What became of every request. `lost` says why, for those that should not have been."""

    def __init__(self) -> None:
        self.sent = 0
        self.outcomes: Counter[str] = Counter()
        self.lost: list[str] = []

    @property
    def settled(self) -> bool:
        """Whether every request that was sent has come to one of the ends that there are."""
        return self.outcomes.total() == self.sent


class SoakLoad:
    """Sends what `questions` draw to the router at the other end of `channel`."""

    def __init__(self, channel: aio.Channel, questions: Questions, rng: random.Random) -> None:
        self.account = Account()
        self._stub = router_pb2_grpc.InferenceStub(channel)
        self._questions = questions
        self._rng = rng

    async def capacity(self, seconds: float, clients: int) -> float:
        """Requests a second that come back to so many clients who ask again at once."""
        ends_at = time.monotonic() + seconds
        before = self.account.outcomes["finished"]

        async def client() -> None:
            while time.monotonic() < ends_at:
                await self._ask(self._questions.draw(self._rng), cancel_after_s=None)

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
        finished = self.account.outcomes["finished"] - before
        return finished / (time.monotonic() - began)

    async def run(self, rate: float, seconds: float) -> None:
        """Sends at the rate, Poisson, for a while; returns when every request has ended."""
        room = asyncio.Semaphore(_MOST_AT_ONCE)
        due = time.monotonic()
        ends_at = due + seconds
        async with asyncio.TaskGroup() as group:
            while (due := due + self._rng.expovariate(rate)) < ends_at:
                await asyncio.sleep(due - time.monotonic())
                await room.acquire()
                task = group.create_task(self._ask_or_leave(self._questions.draw(self._rng)))
                task.add_done_callback(lambda _: room.release())

    async def _ask_or_leave(self, question: Question) -> None:
        leaves = self._rng.random() < CANCELLED
        await self._ask(question, self._rng.uniform(0, CANCEL_WITHIN_S) if leaves else None)

    async def _ask(self, question: Question, cancel_after_s: float | None) -> None:
        self.account.sent += 1
        outcome = await self._outcome(question, cancel_after_s)
        self.account.outcomes[outcome] += 1

    async def _outcome(self, question: Question, cancel_after_s: float | None) -> str:
        call = self._stub.Generate(_request(question), timeout=TIMEOUT_S)
        ids: list[int] = []
        try:
            async with asyncio.timeout(cancel_after_s):
                async for event in call:
                    ids += [token.id for token in event.delta.tokens]
        except TimeoutError:
            call.cancel()
            return "cancelled"
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                return "refused"
            self.account.lost.append(f"{error.code().name}: {error.details()}")
            return "lost"
        if ids != list(question.answer):
            self.account.lost.append(f"{len(ids)} tokens, and not the right ones")
            return "lost"
        return "finished"


def _request(question: Question) -> router_pb2.GenerateRequest:
    return router_pb2.GenerateRequest(
        token_ids=router_pb2.TokenIds(ids=question.prompt),
        sampling=types_pb2.Sampling(
            temperature=0, max_tokens=len(question.answer), ignore_eos=True
        ),
    )
