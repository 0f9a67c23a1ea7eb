"""Measured costs in a JSON file: what `pdserve profile` writes and others have published.

The format is that of the coefficients which DistServe's authors fit on A100 GPUs: milliseconds and
tokens, one entry a TP, the KV capacity by TP × PP. docs/latency.md describes every key.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from pdserve.errors import ConfigError
from pdserve.latency.cost import DecodeCost, Dispatch, InstanceCost, PrefillCost
from pdserve.latency.source import KvShape
from pdserve.models.config import DTYPE_BYTES

_MS = 1e-3
# What DistServe's simulator adds to the passes of its authors' own profiles: 2 ms and 0.1 µs a
# context token where a pass enters the pipeline, and 1 ms × PP in every stage of a prefill pass.
_RAY_DISPATCH = Dispatch(base_s=2.0e-3, per_token_s=1.0e-7)
_RAY_STAGE_S = 1.0e-3
_NO_DISPATCH = Dispatch()
_PUBLISHED_ENGINES = ("distserve", "vllm")


@dataclass(frozen=True, slots=True)
class TpCost:
    """The costs at one TP, with PP = 1."""

    prefill: PrefillCost
    decode: DecodeCost
    decode_large: DecodeCost
    large_from: int


@dataclass(frozen=True, slots=True)
class Profile:
    """A `LatencySource` of measured costs by TP; `fit` says how well they fit what was seen."""

    model: str
    gpu: str
    policy: str
    origin: str
    kv: KvShape
    by_tp: Mapping[int, TpCost]
    kv_tokens: Mapping[tuple[int, int], int]
    dispatch: Dispatch = _NO_DISPATCH
    prefill_stage_s: float = 0.0
    fit: Mapping[str, Any] = field(default_factory=dict)

    def parallelisms(self) -> Sequence[tuple[int, int]]:
        """Every (TP, PP) with costs and a KV capacity."""
        return sorted(key for key in self.kv_tokens if key[0] in self.by_tp)

    def instance(self, tp: int, pp: int) -> InstanceCost:
        """The costs with this TP and PP; `ConfigError` where the profile has none."""
        if (tp, pp) not in self.parallelisms():
            known = ", ".join(f"tp={t},pp={p}" for t, p in self.parallelisms())
            raise ConfigError(
                f"the profile of {self.model} on {self.gpu} has no tp={tp},pp={pp}; it has {known}",
                field="profile",
                limit=known,
            )
        cost = self.by_tp[tp]
        return InstanceCost(
            tp=tp,
            pp=pp,
            prefill=cost.prefill,
            decode=cost.decode,
            decode_large=cost.decode_large,
            large_from=cost.large_from,
            kv_tokens=self.kv_tokens[tp, pp],
            prefill_stage_s=self.prefill_stage_s * pp,
            dispatch=self.dispatch,
        )


def built_in_profiles() -> Sequence[str]:
    """The names of the profiles that the package carries."""
    return sorted(path.name.removesuffix(".json") for path in _packaged().iterdir())


def read_profile(name: str) -> Profile:
    """The profile in a file, or a built-in one by its name.

    Raises `ConfigError` with the file and the key that is wrong.
    """
    packaged = _packaged() / f"{name}.json"
    path = packaged if name in built_in_profiles() else Path(name)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(built_in_profiles())
        raise ConfigError(
            f"profile {name}: {error.strerror}; built-in ones are {known}", field="profile"
        ) from error
    except ValueError as error:
        raise ConfigError(f"profile {name}: not valid JSON: {error}", field="profile") from error
    try:
        return _parse(document)
    except ValueError as error:
        raise ConfigError(f"profile {name}: {error}", field="profile") from error


def write_profile(profile: Profile, path: Path) -> None:
    """Writes a profile that `read_profile` reads; `ConfigError` where it cannot be written."""
    names = {size: name for name, size in reversed(DTYPE_BYTES.items())}
    document = {
        "model": profile.model,
        "device": profile.gpu,
        "engine": profile.policy,
        "source": profile.origin,
        "units": "milliseconds, tokens",
        "model_shape": {
            "layers": profile.kv.layers,
            "kv_heads": profile.kv.kv_heads,
            "head_dim": profile.kv.head_dim,
            "dtype": names[profile.kv.dtype_bytes],
        },
        "kv_capacity_tokens_by_tp_x_pp": {
            f"{tp}x{pp}": tokens for (tp, pp), tokens in sorted(profile.kv_tokens.items())
        },
        "tp": {str(tp): _tp_document(cost) for tp, cost in sorted(profile.by_tp.items())},
        "fit": dict(profile.fit),
    }
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="output") from error


def _packaged() -> Any:
    return resources.files("pdserve.latency") / "profiles"


def _parse(document: Any) -> Profile:
    """The profile in a JSON document; `ValueError` with the key that is wrong."""
    if not isinstance(document, dict):
        raise ValueError("it must be a JSON object")
    shape = _object(document, "model_shape")
    engine = _text(document, "engine")
    published = engine in _PUBLISHED_ENGINES
    capacities = _object(document, "kv_capacity_tokens_by_tp_x_pp")
    by_tp = _object(document, "tp")
    return Profile(
        model=_text(document, "model"),
        gpu=_text(document, "device"),
        policy=engine,
        origin=_text(document, "source"),
        kv=KvShape(
            layers=_count(shape, "layers"),
            kv_heads=_count(shape, "kv_heads"),
            head_dim=_count(shape, "head_dim"),
            dtype_bytes=_dtype_bytes(shape),
        ),
        by_tp={_degree(key, "tp"): _tp_cost(_object(by_tp, key), key) for key in by_tp},
        kv_tokens={_parallelism(key): _count(capacities, key) for key in capacities},
        dispatch=_RAY_DISPATCH if published else _NO_DISPATCH,
        prefill_stage_s=_RAY_STAGE_S if published else 0.0,
        fit=_object(document, "fit") if "fit" in document else {},
    )


def _value(container: Mapping[str, Any], key: str) -> Any:
    if key not in container:
        raise ValueError(f"{key} is missing")
    return container[key]


def _object(container: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = _value(container, key)
    if not isinstance(value, dict):
        raise ValueError(f"{key} is {value!r}; it must be an object")
    return value


def _text(container: Mapping[str, Any], key: str) -> str:
    value = _value(container, key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {value!r}; it must be a text")
    return value


def _count(container: Mapping[str, Any], key: str) -> int:
    value = _value(container, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} is {value!r}; it must be a positive whole number")
    return value


def _dtype_bytes(shape: Mapping[str, Any]) -> int:
    dtype = _text(shape, "dtype")
    if dtype not in DTYPE_BYTES:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPE_BYTES)}")
    return DTYPE_BYTES[dtype]


def _degree(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{where} has the key {text!r}; it must be a positive whole number")
    return int(text)


def _parallelism(key: str) -> tuple[int, int]:
    where = "kv_capacity_tokens_by_tp_x_pp"
    tp, cross, pp = key.partition("x")
    if not cross:
        raise ValueError(f"{where} has the key {key!r}; it must be like 2x1")
    return _degree(tp, where), _degree(pp, where)


def _tp_cost(entry: Mapping[str, Any], tp: str) -> TpCost:
    try:
        return TpCost(
            prefill=PrefillCost(*_seconds(entry, "prefill")),
            decode=DecodeCost(*_seconds(entry, "decode_small")),
            decode_large=DecodeCost(*_seconds(entry, "decode_large")),
            large_from=_count(entry, "decode_large_from_batch"),
        )
    except ValueError as error:
        raise ValueError(f"tp {tp}: {error}") from error


def _seconds(entry: Mapping[str, Any], key: str) -> list[float]:
    """Three coefficients. Published ones may be negative: their authors fitted without a bound."""
    values = _value(entry, key)
    numbers = isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    )
    if not numbers or len(values) != 3:
        raise ValueError(f"{key} is {values!r}; it must be three numbers of milliseconds")
    return [value * _MS for value in values]


def _tp_document(cost: TpCost) -> dict[str, Any]:
    prefill, small, large = cost.prefill, cost.decode, cost.decode_large
    return {
        "prefill": _ms(prefill.base_s, prefill.per_token_s, prefill.per_square_s),
        "decode_small": _ms(small.base_s, small.per_context_token_s, small.per_sequence_s),
        "decode_large": _ms(large.base_s, large.per_context_token_s, large.per_sequence_s),
        "decode_large_from_batch": cost.large_from,
    }


def _ms(*seconds: float) -> list[float]:
    return [value / _MS for value in seconds]
