"""A client that notes when each token arrives."""

import random
import time
from dataclasses import dataclass, field

from grpc import aio

from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2

TIMEOUT_S = 300.0
# Ordinary words of the default model's vocabulary, away from control tokens.
_TOKEN_IDS = range(1000, 40000)


@dataclass(slots=True)
class Timeline:
    """When a request was sent and when its tokens arrived, seconds on the client's clock."""

    sent: float
    tokens: list[float] = field(default_factory=list)
    ledger: types_pb2.Ledger | None = None

    @property
    def ttft(self) -> float:
        """Time to first token."""
        return self.tokens[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        """Time between tokens."""
        return [late - early for early, late in zip(self.tokens, self.tokens[1:], strict=False)]


def random_prompt(rng: random.Random, tokens: int) -> list[int]:
    """A prompt that shares no prefix with any other."""
    return [rng.choice(_TOKEN_IDS) for _ in range(tokens)]


async def generate(channel: aio.Channel, prompt: list[int], max_tokens: int) -> Timeline:
    """Sends one greedy request and reads it to its end."""
    request = router_pb2.GenerateRequest(
        token_ids=router_pb2.TokenIds(ids=prompt),
        sampling=types_pb2.Sampling(temperature=0, max_tokens=max_tokens, ignore_eos=True),
    )
    stub = router_pb2_grpc.InferenceStub(channel)
    timeline = Timeline(time.perf_counter())
    async for event in stub.Generate(request, timeout=TIMEOUT_S):
        now = time.perf_counter()
        timeline.tokens += [now] * len(event.delta.tokens)
        if event.HasField("finished"):
            timeline.ledger = event.finished.ledger
    if len(timeline.tokens) != max_tokens:
        raise RuntimeError(f"{len(timeline.tokens)} tokens arrived, {max_tokens} were asked for")
    return timeline
