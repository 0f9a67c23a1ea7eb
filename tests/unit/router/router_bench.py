"""A whole router over fake instances, and a client of it, in one process."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry
from router_fakes import EOS, FakeDecode, FakeInstance, FakePrefill
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from pdserve.cluster.instance import InstanceAddress
from pdserve.config import RouterConfig
from pdserve.models.source import ModelSource
from pdserve.rpc.channel import open_channel
from pdserve.rpc.tls_identity import door_client, link_identity
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2
from pdserve.text.tokenizer import Tokenizer
from services.router.model import ServedModel
from services.router.router import Router

CONTEXT = 200
VOCAB = 257
TEMPLATE = "{% for message in messages %}{{ message.role }}:{{ message.content }};{% endfor %}"
# Long enough that a loaded machine is not silent, short enough for a test to wait for it.
SILENCE_S = 1.0


@cache
def tiny_model() -> ServedModel:
    """A token a byte; token 256 ends the text."""
    with TemporaryDirectory() as folder:
        write_tiny_model(Path(folder))
        tokenizer = Tokenizer.load(ModelSource("tiny", "hf", Path(folder)))
    assert tokenizer.eos_token_ids == (EOS,)
    return ServedModel(("tiny", "path/to/tiny"), CONTEXT, VOCAB, frozenset((EOS,)), tokenizer)


def write_tiny_model(folder: Path) -> None:
    """The files of `tiny_model`, as a Hugging Face directory without weights."""
    alphabet = _byte_alphabet()
    backend = Backend(models.BPE(vocab={char: byte for byte, char in alphabet.items()}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    backend.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<end>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCAB,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 16,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "eos_token_id": EOS,
    }
    (folder / "config.json").write_text(json.dumps(config))


def _byte_alphabet() -> dict[int, str]:
    """The printable stand-in of each byte (Radford et al. 2019, GPT-2's encoder)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {
        byte: chr(256 + place) for place, byte in enumerate(hidden)
    }


@dataclass
class Answer:
    """What a client got."""

    text: str = ""
    tokens: list[types_pb2.Token] = field(default_factory=list)
    events: list[router_pb2.GenerateEvent] = field(default_factory=list)
    finished: router_pb2.Finished | None = None

    @property
    def indices(self) -> list[int]:
        return [token.index for token in self.tokens]


class Members:
    """A discovery whose membership a test may change."""

    problem = ""

    def __init__(self, instances: list[FakeInstance]) -> None:
        self._changes: asyncio.Queue[tuple[InstanceAddress, ...]] = asyncio.Queue()
        self.change(instances)

    def change(self, instances: list[FakeInstance]) -> None:
        self.name(fake.address for fake in instances)

    def name(self, addresses: Iterable[InstanceAddress]) -> None:
        self._changes.put_nowait(tuple(addresses))

    async def watch(self) -> AsyncIterator[tuple[InstanceAddress, ...]]:
        while True:
            yield await self._changes.get()


class Aside:
    """Owns tasks; those that are left at the end are cancelled."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task] = []

    def run(self, work) -> asyncio.Task:
        self._tasks.append(asyncio.create_task(work))
        return self._tasks[-1]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass
class Bench:
    """The router, its instances and a client stub."""

    router: Router
    metrics: CollectorRegistry
    prefill: list[FakePrefill]
    decode: list[FakeDecode]
    stub: "router_pb2_grpc.InferenceAsyncStub"
    members: Members
    stop: asyncio.Event
    served: asyncio.Task
    # What a test starts beside itself.
    aside: "Aside"

    @property
    def instances(self) -> list[FakeInstance]:
        return [*self.prefill, *self.decode]

    async def generate(self, prompt: str = "hello", *, timeout: float = 20, **fields) -> Answer:
        """The whole answer to a prompt; greedy but for what `fields` say."""
        request = router_pb2.GenerateRequest(**{"prompt": prompt} | fields)
        answer = Answer()
        call = self.stub.Generate(request, timeout=timeout)
        try:
            async for event in call:
                answer.events.append(event)
                answer.text += event.delta.text
                answer.tokens += event.delta.tokens
                if event.HasField("finished"):
                    assert answer.finished is None
                    answer.finished = event.finished
        finally:
            # Not every await inside the call ends it when the task is cancelled.
            call.cancel()
        return answer

    @property
    def url(self) -> str:
        """Of the HTTP API."""
        return self.router.http.url

    async def until(self, condition) -> None:
        """Waits until `condition()` holds."""
        await until(condition)

    async def until_state(self, fake: FakeInstance, state: str) -> None:
        await self.until(lambda: self.state(fake) == state)

    def state(self, fake: FakeInstance) -> str:
        status = self.router.fleet.status()
        states = (each.state for each in status if each.address == fake.address.address)
        return next(states, "absent")

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(f"pdserve_router_{name}", labels) or 0.0

    async def until_quiet(self) -> None:
        """Waits until nothing of any request is left on the router or on any instance."""
        await self.until(
            lambda: (
                self.router.requests.running == 0
                and self.router.releaser.pending == 0
                and all(fake.running == 0 for fake in self.instances)
            )
        )


async def until(condition) -> None:
    """Waits until `condition()` holds, for a bounded time."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody tells when a call on a fake has ended
            await asyncio.sleep(0.005)


@asynccontextmanager
async def bench(prefill: int = 1, decode: int = 1, **options) -> AsyncIterator[Bench]:
    """A router whose instances are all up; afterwards nothing of it may be left."""
    before = asyncio.all_tasks()
    transfers: dict[str, asyncio.Event] = {}
    prefills = [FakePrefill(f"prefill-{number}", transfers) for number in range(prefill)]
    decodes = [FakeDecode(f"decode-{number}", transfers) for number in range(decode)]
    fakes: list[FakeInstance] = [*prefills, *decodes]
    metrics = CollectorRegistry()
    # By load, which is to say in the order of the list: tests know where a request goes.
    defaults = {
        "silence_timeout_s": SILENCE_S,
        "placement_timeout_s": 3.0,
        "drain_grace_s": 5.0,
        "placer": "least_load",
        "canary_interval_s": 0.0,
    }
    config = RouterConfig(**defaults | options)
    tls = link_identity(config)
    for fake in fakes:
        fake.tls = tls
        await fake.start()
    members = Members(fakes)
    router = Router(config, tiny_model(), members, metrics)
    stop, listening = asyncio.Event(), asyncio.Event()
    served = asyncio.create_task(router.serve(stop, listening.set))
    try:
        await listening.wait()
        async with open_channel(router.address, door_client(config)) as channel:
            stub = router_pb2_grpc.InferenceStub(channel)
            it = Bench(router, metrics, prefills, decodes, stub, members, stop, served, Aside())
            for fake in fakes:
                await it.until_state(fake, "up")
            try:
                yield it
            finally:
                await it.aside.close()
            if not served.done():
                await it.until_quiet()
    finally:
        stop.set()
        for fake in fakes:
            fake.awake.set()
        await asyncio.wait_for(served, 20)
        for fake in fakes:
            await fake.kill()
    # Whatever was cancelled has ended, and nothing has been forgotten.
    await until(lambda: all(fake.running == fake.watchers == 0 for fake in fakes))
    own = {asyncio.current_task()}
    await until(lambda: all(task.done() for task in asyncio.all_tasks() - before - own))
