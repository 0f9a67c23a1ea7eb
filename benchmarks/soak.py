"""The soak: load for a long time, clients that leave, instances that drain, die and stand still.

Measures what the cluster can do, then sends 80 % of it. In the end every request must be accounted
for, nothing may be left behind, and what the processes hold must not have grown.
"""

import asyncio
import json
import random
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from grpc import aio
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.client import random_prompt
from benchmarks.report import console, print_table
from benchmarks.soak_harm import Harm
from benchmarks.soak_load import Account, Question, SoakLoad
from benchmarks.soak_samples import LIMITS, Sampler, Series, risen
from pdserve.cli.local_cluster import ROUTER, ClusterSpec, LocalCluster
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.rpc.channel import open_channel
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2
from tests.doubles.context_engine import continuation
from tests.doubles.shaped_instance import Shape, shaped_command
from tests.integration.harness import left_behind, report

SHARE_OF_CAPACITY = 0.8
PROMPT_TOKENS, NEW_TOKENS = (32, 128), (8, 24)
# From then on, as a share of the time, what is held must be flat: pools and caches are full.
WARM_UP = 0.35
# So few that a router of a short soak forgets as many as it learns of.
EXPLAINED = 128
# A pool that is written to its end within seconds, so that its memory is all there.
BLOCKS = 600
_IDLE_TIMEOUT_S, _IDLE_POLL_S = 30.0, 0.2
_REAL_PROMPTS = 24


@dataclass(frozen=True, slots=True)
class Soak:
    """How long, on what and how."""

    seconds: float
    real_model: bool = False
    seed: int = 0

    @property
    def pause_s(self) -> float:
        """Between two harms, on average."""
        return min(8.0, max(2.0, self.seconds / 15))

    @property
    def measure_s(self) -> float:
        """How long the capacity is measured."""
        return min(20.0, max(4.0, self.seconds / 10))

    @property
    def clients(self) -> int:
        """That ask at once when the capacity is measured."""
        return 8 if self.real_model else 24

    def spec(self) -> ClusterSpec:
        """Two instances a phase; bounds as they are by default."""
        instance = InstanceConfig(threads=1, max_model_len=512, kv_memory_bytes=96 << 20)
        router = RouterConfig(explain_requests=EXPLAINED, http=False)
        return ClusterSpec(2, 2, instance, router, start_timeout_s=120)


@dataclass(slots=True)
class Outcome:
    """What came of a soak; `problems` are what should not have been, in words."""

    seconds: float
    capacity: float
    account: Account
    harm: dict[str, int]
    counted_by_router: int
    series: dict[str, Series]
    watched_since: float
    left: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def problems(self) -> Sequence[str]:
        """Empty when everything is as it should be."""
        account = self.account
        found = [f"lost: {reason}" for reason in account.lost]
        if not account.settled:
            found.append(f"{account.sent} sent, but {account.outcomes.total()} came to an end")
        # It never hears of a request that is cancelled at once.
        least = account.sent - account.outcomes["cancelled"]
        if not least <= self.counted_by_router <= account.sent:
            found.append(f"{account.sent} sent, the router counted {self.counted_by_router}")
        found += [f"{name} has left behind {what}" for name, what in self.left.items()]
        return [*found, *risen(self.series, self.watched_since)]


class AnyQuestion:
    """For the engine whose answers can be told beforehand: no prompt comes twice."""

    def draw(self, rng: random.Random) -> Question:
        """See `Questions.draw`."""
        prompt = random_prompt(rng, rng.randint(*PROMPT_TOKENS))
        return Question(prompt, continuation(prompt, rng.randint(*NEW_TOKENS)))


class KnownQuestions:
    """For a model: prompts whose answers were asked for while nothing went wrong."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions

    @classmethod
    async def ask(cls, channel: aio.Channel, rng: random.Random) -> "KnownQuestions":
        """Draws prompts and has them answered, one at a time."""
        return cls([await _answered(channel, rng) for _ in range(_REAL_PROMPTS)])

    def draw(self, rng: random.Random) -> Question:
        """See `Questions.draw`."""
        return rng.choice(self._questions)


async def soak(plan: Soak) -> Outcome:
    """Runs one."""
    rng = random.Random(plan.seed)
    command_of = (
        None if plan.real_model else partial(shaped_command, Shape(blocks=BLOCKS, head_dim=32))
    )
    async with (
        LocalCluster(plan.spec(), command_of=command_of) as cluster,
        open_channel(cluster.router_address) as channel,
    ):
        questions = await KnownQuestions.ask(channel, rng) if plan.real_model else AnyQuestion()
        load = SoakLoad(channel, questions, rng)
        capacity = await load.capacity(plan.measure_s, plan.clients)
        console.print(f"capacity: {capacity:.1f} requests/s")
        sampler, harm = Sampler(cluster), Harm(cluster, rng)
        sampling = asyncio.create_task(sampler.run(min(2.0, plan.seconds / 100)))
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run(SHARE_OF_CAPACITY * capacity, plan.seconds))
                group.create_task(harm.run(plan.pause_s, 0.9 * plan.seconds))
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
        left = await _left_when_idle(cluster)
        counted = await asyncio.to_thread(_counted, cluster.processes[ROUTER].facts["metrics"])
        asked = _REAL_PROMPTS if plan.real_model else 0
        since = began + WARM_UP * plan.seconds
        return Outcome(
            plan.seconds, capacity, load.account, dict(harm.done), counted - asked,
            sampler.series, since, left,
        )  # fmt: skip


async def run(minutes: float, *, real_model: bool = False, output: str = "build/soak.json") -> None:
    """Runs a soak, prints what came of it, and writes it to the file `output`."""
    plan = Soak(60 * minutes, real_model)
    outcome = await soak(plan)
    print_outcome(outcome)
    await asyncio.to_thread(_write, Path(output), summary(outcome))
    console.print(f"written to {output}")
    if outcome.problems:
        raise SystemExit(1)


def summary(outcome: Outcome) -> dict[str, object]:
    """What is worth keeping, as JSON has it; trends are from the end of the warm-up on."""
    return {
        "seconds": outcome.seconds,
        "capacity_requests_per_s": outcome.capacity,
        "sent": outcome.account.sent,
        "outcomes": dict(outcome.account.outcomes),
        "harm": outcome.harm,
        "counted_by_router": outcome.counted_by_router,
        "left_behind": outcome.left,
        "trends": {
            name: {
                figure: asdict(series.trend(figure, outcome.watched_since))
                for figure in series.figures
            }
            for name, series in outcome.series.items()
        },
        "problems": list(outcome.problems),
    }


def print_outcome(outcome: Outcome) -> None:
    """Tables of requests, harm, and of what the processes held."""
    account = outcome.account
    ends = ", ".join(f"{count} {name}" for name, count in sorted(account.outcomes.items()))
    harm = ", ".join(f"{count} × {name}" for name, count in sorted(outcome.harm.items()))
    console.print(f"{account.sent} requests in {outcome.seconds:.0f} s: {ends}; {harm}")
    rows = []
    for name, series in outcome.series.items():
        for limit in LIMITS:
            if limit.figure in series.figures:
                trend = series.trend(limit.figure, outcome.watched_since)
                figures = (trend.median, trend.rise, trend.rise_per_hour)
                rows.append((name, limit.figure, *(f"{value:.1f}" for value in figures)))
    columns = ("process", "figure", "median", "rise of the fitted line", "an hour")
    print_table(f"after the first {WARM_UP:.0%} of the time", columns, rows)
    for problem in outcome.problems:
        console.print(f"PROBLEM {problem}")


def _write(path: Path, document: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


async def _left_when_idle(cluster: LocalCluster) -> dict[str, dict[str, int]]:
    """What the instances still have once they have had time to get rid of everything."""
    left: dict[str, dict[str, int]] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(_IDLE_TIMEOUT_S):
            while left := await _held(cluster):  # noqa: ASYNC110 - processes tell nobody
                await asyncio.sleep(_IDLE_POLL_S)
    return left


async def _held(cluster: LocalCluster) -> dict[str, dict[str, int]]:
    held = {
        name: left_behind(await report(cluster.addresses[name], role))
        for role, name in cluster.spec.names()
    }
    return {name: what for name, what in held.items() if what}


def _counted(metrics_url: str) -> int:
    """Requests that the router says have ended, in whatever way."""
    with urllib.request.urlopen(metrics_url, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    wanted = "pdserve_router_requests_total"
    samples = (sample for family in families for sample in family.samples)
    return int(sum(sample.value for sample in samples if sample.name == wanted))


async def _answered(channel: aio.Channel, rng: random.Random) -> Question:
    prompt, count = random_prompt(rng, rng.randint(*PROMPT_TOKENS)), rng.randint(*NEW_TOKENS)
    request = router_pb2.GenerateRequest(
        token_ids=router_pb2.TokenIds(ids=prompt),
        sampling=types_pb2.Sampling(temperature=0, max_tokens=count, ignore_eos=True),
    )
    answer: list[int] = []
    async for event in router_pb2_grpc.InferenceStub(channel).Generate(request, timeout=60):
        answer += [token.id for token in event.delta.tokens]
    return Question(prompt, answer)
