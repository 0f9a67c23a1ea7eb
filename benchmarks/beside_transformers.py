"""Steps of our engine beside forwards of transformers: same weights, shapes and device, one run.

Our steps are whole ones, as an instance takes them: deciding what goes into the batch, computing
it, sampling and recording the result. Those of transformers are a forward with `sdpa` attention and
the argmax of its last logits. One side is loaded after the other: each has the memory to itself.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

from benchmarks.random_checkpoint import LLAMA_8B, TINY, write_checkpoint
from benchmarks.report import console, print_table, spread
from pdserve.config import InstanceConfig
from pdserve.instance.loading import load_engine, make_engine, resolve_device
from pdserve.profiling.shape import Prompt, StepShape
from pdserve.profiling.stage import Stage


class Shape(NamedTuple):
    """So many prompts of a length, or so many sequences that decode after a context of it."""

    count: int
    length: int

    def __str__(self) -> str:
        return f"{self.count} × {self.length}"


@dataclass(frozen=True, slots=True)
class Size:
    """The model that is made where none is given, and what lengths and memory are divided by."""

    checkpoint: LlamaConfig
    divisor: int

    def shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [Shape(count, length // self.divisor) for count, length in shapes]


FULL = Size(LLAMA_8B, 1)
SMALL = Size(TINY, 32)

PREFILL = [Shape(1, 128), Shape(1, 512), Shape(1, 2048), Shape(4, 2048), Shape(1, 8192)]
DECODE = [Shape(1, 1024), Shape(8, 1024), Shape(32, 1024), Shape(64, 1024), Shape(32, 4096)]
GENERATE = DECODE[:2]
# Steps in a row of each round.
PREFILLS, DECODES = 3, 5
NEW_TOKENS = 32
# No length comes twice: a plan that cuDNN has made is kept.
NEW_CONTEXTS = {False: range(1000, 1160, 16), True: range(1200, 1360, 16)}
NEW_PROMPTS = {False: range(700, 770, 7), True: range(801, 871, 7)}
_KV_BYTES, _BATCH_TOKENS, _MODEL_LEN = 24 << 30, 8192, 9000

Times = dict[Shape, list[float]]


class NewLengths(NamedTuple):
    """Seconds of steps at lengths not seen before: 8 sequences that decode, one prompt."""

    decode: list[float]
    prefill: list[float]


@dataclass(frozen=True, slots=True)
class Ours:
    """Seconds of steps; those at new lengths by whether cuDNN may attend."""

    prefill: Times
    decode: Times
    new_lengths: dict[bool, NewLengths]


@dataclass(frozen=True, slots=True)
class Theirs:
    """Seconds of forwards, and of `generate` a token, prefill included."""

    prefill: Times
    decode: Times
    decode_without_cudnn: Times
    generate: Times


async def run(repeats: int, *, model: str = "", size: Size = FULL) -> None:
    """Prints the tables for the model in a directory, or for a random one in a temporary folder."""
    device = resolve_device("auto")
    _print_device(device)
    with tempfile.TemporaryDirectory() as folder:
        if not model:
            write_checkpoint(size.checkpoint, Path(folder), device)
        ours = _measure_ours(model or folder, device, size, repeats)
        torch.cuda.empty_cache()
        theirs = _measure_theirs(model or folder, device, size, repeats)
    _print_prefill(ours.prefill, theirs.prefill)
    _print_decode(ours.decode, theirs)
    if ours.new_lengths:
        _print_cudnn(ours.new_lengths)


def _measure_ours(directory: str, device: torch.device, size: Size, repeats: int) -> Ours:
    config = InstanceConfig(
        model=directory,
        device=str(device),
        dtype="bfloat16",
        kv_memory_bytes=_KV_BYTES // size.divisor**2,
        max_batch_tokens=_BATCH_TOKENS // size.divisor,
        max_batch_seqs=max(shape.count for shape in DECODE),
        max_model_len=_MODEL_LEN // size.divisor,
    )
    loaded = load_engine(config)
    engine = make_engine(config, loaded, None)
    stage = Stage(engine, loaded.pool, loaded.vocab_size, time.perf_counter)
    prefill = {
        shape: _steps(stage, _prompts(shape), repeats, PREFILLS) for shape in size.shapes(PREFILL)
    }
    decode = {
        shape: _steps(stage, _contexts(shape), repeats, DECODES) for shape in size.shapes(DECODE)
    }
    # Divided by more, lengths that are to be new would be the same.
    try_cudnn = device.type == "cuda" and size.divisor == 1
    return Ours(prefill, decode, _new_lengths(stage) if try_cudnn else {})


def _new_lengths(stage: Stage) -> dict[bool, NewLengths]:
    times = {}
    for cudnn in (False, True):
        with _cudnn_attention(cudnn):
            decode = [stage.time(_contexts(Shape(8, each)))[0] for each in NEW_CONTEXTS[cudnn]]
            prefill = [stage.time(_prompts(Shape(1, each)))[0] for each in NEW_PROMPTS[cudnn]]
            times[cudnn] = NewLengths(decode, prefill)
    return times


def _steps(stage: Stage, shape: StepShape, repeats: int, steps: int) -> list[float]:
    stage.time(shape, 2)  # warms up
    return [seconds for _ in range(repeats) for seconds in stage.time(shape, steps)]


def _prompts(shape: Shape) -> StepShape:
    return StepShape(prompts=(Prompt(shape.length),) * shape.count)


def _contexts(shape: Shape) -> StepShape:
    return StepShape(contexts=(shape.length,) * shape.count)


def _measure_theirs(directory: str, device: torch.device, size: Size, repeats: int) -> Theirs:
    transformers = _Transformers(directory, device)
    prefill, decode = size.shapes(PREFILL), size.shapes(DECODE)
    # cuDNN is allowed by default.
    with torch.inference_mode(), _cudnn_attention(True):
        prefilled = {shape: transformers.prefill(shape, repeats * PREFILLS) for shape in prefill}
        decoded = {shape: transformers.decode(shape, repeats * DECODES) for shape in decode}
        generated = {
            shape: transformers.generate(shape, repeats) for shape in size.shapes(GENERATE)
        }
        with _cudnn_attention(False):
            without = {shape: transformers.decode(shape, repeats * DECODES) for shape in decode}
    return Theirs(prefilled, decoded, without, generated)


class _Transformers:
    """The model as transformers runs it; seconds of each call, once it has been warmed up."""

    def __init__(self, directory: str, device: torch.device) -> None:
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        self._model = model.to(device).eval()
        self._device = device

    def prefill(self, shape: Shape, times: int) -> list[float]:
        ids = self._ids(*shape)
        return self._time(lambda: self._forward(ids, None), 2, times)

    def decode(self, shape: Shape, times: int) -> list[float]:
        """Contexts grow by a token a call, as ours do."""
        cache = DynamicCache(config=self._model.config)
        for part in self._ids(*shape).split(1024, 1):
            self._forward(part, cache)
        token = self._ids(shape.count, 1)
        return self._time(lambda: self._forward(token, cache), 3, times)

    def generate(self, shape: Shape, times: int) -> list[float]:
        """Seconds a token, with the prefill of the prompts divided among them."""
        ids = self._ids(*shape)

        def generate() -> None:
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
            )

        return [seconds / NEW_TOKENS for seconds in self._time(generate, 1, times)]

    def _forward(self, ids: torch.Tensor, cache: DynamicCache | None) -> torch.Tensor:
        out = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1)

    def _ids(self, count: int, length: int) -> torch.Tensor:
        return torch.randint(0, self._model.config.vocab_size, (count, length), device=self._device)

    def _time(self, call: Callable[[], object], warm_ups: int, times: int) -> list[float]:
        seconds = []
        for _ in range(warm_ups + times):
            self._synchronize()
            began = time.perf_counter()
            call()
            self._synchronize()
            seconds.append(time.perf_counter() - began)
        return seconds[warm_ups:]

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


@contextmanager
def _cudnn_attention(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(allowed)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def _print_device(device: torch.device) -> None:
    name = "CPU"
    if device.type == "cuda":
        cudnn, cuda = torch.backends.cudnn.version(), torch.version.cuda
        name = f"{torch.cuda.get_device_name(device)}, CUDA {cuda}, cuDNN {cudnn}"
    console.print(f"{name}; transformers {version('transformers')}; bfloat16")


def _print_prefill(ours: Times, theirs: Times) -> None:
    rows = [
        (str(shape), _ms(ours[shape]), _ms(theirs[shape]), _ratio(theirs[shape], ours[shape]))
        for shape in ours
    ]
    print_table(
        "prefill, ms: prompts × tokens",
        ("shape", "pdserve", "transformers", "transformers / pdserve"),
        rows,
    )


def _print_decode(ours: Times, theirs: Theirs) -> None:
    """The ratio is that to whichever of transformers' ways is the fastest."""
    rows = []
    for shape in ours:
        ways = [
            times[shape]
            for times in (theirs.decode, theirs.decode_without_cudnn, theirs.generate)
            if shape in times
        ]
        fastest = min(ways, key=statistics.median)
        cells = [_ms(way) for way in ways] + [""] * (3 - len(ways))
        rows.append((str(shape), _ms(ours[shape]), *cells, _ratio(fastest, ours[shape])))
    print_table(
        "decode, ms a step: sequences × tokens of context",
        ("shape", "pdserve", "forward", "without cuDNN", "generate", "fastest / pdserve"),
        rows,
    )


def _print_cudnn(times: dict[bool, NewLengths]) -> None:
    names = ("decode, 8 sequences", "prefill, 1 prompt")
    rows = [
        (name, _ms(without), _ms(allowed), _ratio(allowed, without))
        for name, without, allowed in zip(names, times[False], times[True], strict=True)
    ]
    print_table(
        "pdserve, ms a step, each of a length that did not occur before",
        ("step", "without cuDNN attention", "with it", "with / without"),
        rows,
    )


def _ms(seconds: Sequence[float]) -> str:
    return spread([1000 * each for each in seconds])


def _ratio(a: Sequence[float], b: Sequence[float]) -> str:
    return f"{statistics.median(a) / statistics.median(b):.2f}"
