"""Costs from operators that NVIDIA has measured, by way of the package `aiconfigurator-core`.

The package holds times of matrix products, attention and collectives as vLLM, SGLang and
TensorRT-LLM run them on several systems, and adds them up to the time of a pass. It is optional
(`pip install 'pdserve[silicon]'`) and is imported when a cost is asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

from pdserve.errors import ConfigError
from pdserve.latency.cost import DecodeCost, InstanceCost, PrefillCost
from pdserve.latency.fit import FitError, fit_decode, fit_prefill
from pdserve.latency.hardware import Gpu
from pdserve.latency.shard import Shard
from pdserve.latency.source import KvShape
from pdserve.models.config import DTYPE_BYTES, ModelConfig

_MS = 1e-3
_DTYPE = "bfloat16"
# The package's names of the systems for which it carries measurements.
_SYSTEMS = {
    "A100-SXM4-80GB": "a100_sxm",
    "H100-SXM5-80GB": "h100_sxm",
    "H200-SXM5-141GB": "h200_sxm",
    "B200-SXM6-180GB": "b200_sxm",
    "L40S": "l40s",
}
# What the backends' own memory settings are a share of.
_MEMORY_KINDS = {"vllm": "of_total", "sglang": "of_total", "trtllm": "of_free"}
_MEMORY_SHARE = 0.9
_PASS_TOKENS, _PASS_SEQUENCES = 2048, 256

_PROMPTS = (1, 4)
_PROMPT_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
_PREFIX_TOKENS = (0, 2048)
_MOST_PREFILL_TOKENS = 16384
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
_CONTEXT_TOKENS = (128, 512, 2048, 8192)


@dataclass(frozen=True, slots=True)
class _Fitted:
    prefill: PrefillCost
    decode: DecodeCost
    decode_large: DecodeCost
    large_from: int
    errors: tuple[FitError, FitError]


@dataclass(frozen=True, slots=True)
class Silicon:
    """A `LatencySource` of `model` in bfloat16 on `hardware`, as `backend` computes it.

    `model` is a Hugging Face id that the package knows or a directory with a `config.json`, and
    `config` is the same model. `backend` is vllm, sglang or trtllm and `version` one of the
    package's versions of it. Raises `ConfigError` for a GPU or backend without measurements.
    """

    model: str
    config: ModelConfig
    hardware: Gpu
    backend: str = "vllm"
    version: str = "current"
    max_tp: int = 8
    max_pp: int = 8

    def __post_init__(self) -> None:
        _one_of("gpu", self.hardware.name, _SYSTEMS)
        _one_of("backend", self.backend, _MEMORY_KINDS)

    @property
    def gpu(self) -> str:
        """The GPU's name."""
        return self.hardware.name

    @property
    def policy(self) -> str:
        """The batching of pdserve's own engine: only the operators are another engine's."""
        return "pdserve"

    @property
    def origin(self) -> str:
        """Where the figures come from, in words."""
        system = _SYSTEMS[self.hardware.name]
        return f"aiconfigurator-core: operators of {self.backend} ({self.version}) on {system}"

    @property
    def kv(self) -> KvShape:
        """The shape of a token's KV."""
        config = self.config
        return KvShape(config.layers, config.kv_heads, config.head_dim, DTYPE_BYTES[_DTYPE])

    def parallelisms(self) -> Sequence[tuple[int, int]]:
        """Every (TP, PP) of powers of two that divides the model and leaves room for KV.

        Raises `ConfigError` where the package is not installed.
        """
        _memory_estimator()
        tps = (1 << exponent for exponent in range(self.max_tp.bit_length()))
        pps = [1 << exponent for exponent in range(self.max_pp.bit_length())]
        return [(tp, pp) for tp, pp in product(tps, pps) if self._fits(tp, pp)]

    def instance(self, tp: int, pp: int) -> InstanceCost:
        """The costs with this TP and PP, fitted to the package's times over a grid.

        Raises `ConfigError` where the package is not installed or has no times for this.
        """
        kv_tokens = self._room(tp, pp)
        fitted = self._fitted(tp, pp, kv_tokens)
        return InstanceCost(
            tp=tp,
            pp=pp,
            prefill=fitted.prefill,
            decode=fitted.decode,
            decode_large=fitted.decode_large,
            large_from=fitted.large_from,
            kv_tokens=kv_tokens,
        )

    def fit_errors(self, tp: int, pp: int) -> tuple[FitError, FitError]:
        """How far the fitted prefill and decode costs are from the package's times."""
        return self._fitted(tp, pp, self._room(tp, pp)).errors

    def _fits(self, tp: int, pp: int) -> bool:
        try:
            return self._room(tp, pp) > 0
        except ConfigError:
            return False

    def _room(self, tp: int, pp: int) -> int:
        """Tokens of KV that an instance holds."""
        Shard(self.config, _DTYPE, tp, pp)  # says which number does not divide
        estimate = _memory_estimator()
        with self._explained(tp, pp):
            memory = estimate(
                self.model,
                _SYSTEMS[self.hardware.name],
                self.backend,
                self.version,
                max_num_tokens=_PASS_TOKENS,
                max_batch_size=_PASS_SEQUENCES,
                memory_fraction_kind=_MEMORY_KINDS[self.backend],
                memory_fraction_value=_MEMORY_SHARE,
                tp_size=tp,
                pp_size=pp,
                gemm_quant_mode=_DTYPE,
                kvcache_quant_mode=_DTYPE,
                gpu_memory_capacity_bytes_override=self.hardware.memory_bytes,
            )
        # The package counts what one stage could hold of all layers; it holds 1 / PP of them.
        return int(memory["total_kv_size_tokens"]) * pp

    def _fitted(self, tp: int, pp: int, kv_tokens: int) -> _Fitted:
        compile_engine = _engine_compiler()
        with self._explained(tp, pp):
            engine = compile_engine(
                self.model,
                _SYSTEMS[self.hardware.name],
                self.backend,
                backend_version=self.version,
                tp_size=tp,
                pp_size=pp,
                gemm_quant_mode=_DTYPE,
                kvcache_quant_mode=_DTYPE,
            )
            prefills = list(self._prefills(engine))
            decodes = list(self._decodes(engine, kv_tokens))
        prefill, prefill_error = fit_prefill(*zip(*prefills, strict=True))
        small, large, large_from, decode_error = fit_decode(*zip(*decodes, strict=True))
        return _Fitted(prefill, small, large, large_from, (prefill_error, decode_error))

    def _prefills(self, engine: Any) -> Iterator[tuple[float, float, float]]:
        """Tokens, squares and seconds of passes of some prompts with and without a prefix."""
        for prompts, new, past in product(_PROMPTS, _PROMPT_TOKENS, _PREFIX_TOKENS):
            whole = past + new
            if whole > self.config.max_position or prompts * whole > _MOST_PREFILL_TOKENS:
                continue
            milliseconds = engine.predict_prefill_latency(prompts, whole, past)
            yield prompts * new, prompts * (whole**2 - past**2), milliseconds * _MS

    def _decodes(self, engine: Any, kv_tokens: int) -> Iterator[tuple[float, float, float]]:
        """Batch, context and seconds of the steps whose KV fits."""
        for batch, length in product(_BATCHES, _CONTEXT_TOKENS):
            if length >= self.config.max_position or batch * (length + 1) > kv_tokens:
                continue
            milliseconds = engine.predict_decode_latency(batch, length)
            yield batch, batch * (length + 1), milliseconds * _MS

    @contextmanager
    def _explained(self, tp: int, pp: int) -> Iterator[None]:
        """Turns whatever the package raises for what it does not know into one kind of error."""
        from aiconfigurator_core.sdk.utils import HuggingFaceDownloadError

        try:
            yield
        except (
            ArithmeticError,
            AssertionError,
            LookupError,
            OSError,
            RuntimeError,
            ValueError,
            HuggingFaceDownloadError,
        ) as error:
            raise ConfigError(
                f"aiconfigurator-core has no costs of {self.model} with tp={tp},pp={pp} as "
                f"{self.backend} ({self.version}) computes it on {self.gpu}: {error}",
                field="latency",
            ) from error


def _one_of(field: str, value: str, known: dict[str, str]) -> None:
    if value not in known:
        names = ", ".join(known)
        raise ConfigError(
            f"{field} is {value!r}; measured operators are known of {names}",
            field=field,
            limit=names,
        )


def _engine_compiler() -> Callable[..., Any]:
    try:
        from aiconfigurator_core.sdk.engine import EngineHandle
    except ImportError as error:
        raise _missing() from error
    compiler: Callable[..., Any] = EngineHandle.compile
    return compiler


def _memory_estimator() -> Callable[..., dict[str, Any]]:
    try:
        from aiconfigurator_core.sdk.memory import estimate_kv_cache
    except ImportError as error:
        raise _missing() from error
    estimator: Callable[..., dict[str, Any]] = estimate_kv_cache
    return estimator


def _missing() -> ConfigError:
    return ConfigError(
        "silicon costs need the package aiconfigurator-core: pip install 'pdserve[silicon]'",
        field="latency",
    )
