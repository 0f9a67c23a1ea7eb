"""Measured costs in a JSON file: what `pdserve profile` writes and others have published.

The format is that of the coefficients which DistServe's authors fit on A100 GPUs: milliseconds and
tokens, one entry a TP, the KV capacity by TP × PP. docs/latency.md describes every key.
"""

import json
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
    except KeyError as error:
        raise ConfigError(f"profile {name}: {error} is missing", field="profile") from error
    except (TypeError, ValueError, AttributeError) as error:
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
    if not isinstance(document, dict):
        raise TypeError("it must be a JSON object")
    shape = document["model_shape"]
    engine = str(document["engine"])
    published = engine in _PUBLISHED_ENGINES
    return Profile(
        model=str(document["model"]),
        gpu=str(document["device"]),
        policy=engine,
        origin=str(document["source"]),
        kv=KvShape(
            layers=int(shape["layers"]),
            kv_heads=int(shape["kv_heads"]),
            head_dim=int(shape["head_dim"]),
            dtype_bytes=DTYPE_BYTES[shape["dtype"]],
        ),
        by_tp={int(tp): _tp_cost(entry) for tp, entry in document["tp"].items()},
        kv_tokens={
            _parallelism(key): int(tokens)
            for key, tokens in document["kv_capacity_tokens_by_tp_x_pp"].items()
        },
        dispatch=_RAY_DISPATCH if published else _NO_DISPATCH,
        prefill_stage_s=_RAY_STAGE_S if published else 0.0,
        fit=document.get("fit", {}),
    )


def _parallelism(key: str) -> tuple[int, int]:
    tp, pp = key.split("x")
    return int(tp), int(pp)


def _tp_cost(entry: Mapping[str, Any]) -> TpCost:
    return TpCost(
        prefill=PrefillCost(*_seconds(entry, "prefill")),
        decode=DecodeCost(*_seconds(entry, "decode_small")),
        decode_large=DecodeCost(*_seconds(entry, "decode_large")),
        large_from=int(entry["decode_large_from_batch"]),
    )


def _seconds(entry: Mapping[str, Any], key: str) -> list[float]:
    coefficients = [float(value) * _MS for value in entry[key]]
    if len(coefficients) != 3:
        raise ValueError(f"{key} has {len(coefficients)} coefficients; it must have 3")
    return coefficients


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
