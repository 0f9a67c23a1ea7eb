"""Profiles an instance: loads it, measures its steps, and fits their costs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pdserve import __version__
from pdserve.config import InstanceConfig
from pdserve.errors import ConfigError
from pdserve.instance.loading import LoadedEngine, load_engine, make_engine
from pdserve.latency.cost import InstanceCost
from pdserve.latency.profile import Profile, TpCost
from pdserve.latency.source import KvShape
from pdserve.models.config import DTYPE_BYTES
from pdserve.profiling.costs import FittedCosts, fit_costs
from pdserve.profiling.grid import Limits, grid
from pdserve.profiling.machine import Machine, this_machine
from pdserve.profiling.measure import Measurement, Measuring
from pdserve.profiling.shape import Kind, StepShape
from pdserve.profiling.stage import Stage

# Shortest sequences that a grid of three coefficients can be laid out in, tokens.
_LEAST_LEN = 64
_LEAST_BATCH_TOKENS = 32
_LEAST_SEQS = 4


@dataclass(frozen=True, slots=True)
class Report:
    """A profile, and what is worth telling about how it came about."""

    profile: Profile
    fitted: FittedCosts
    measurement: Measurement


def profile_instance(
    config: InstanceConfig,
    seconds: float,
    clock: Callable[[], float],
    progress: Callable[[float], None],
    load: Callable[[InstanceConfig], LoadedEngine] = load_engine,
) -> Report:
    """Measures the instance that `config` describes for about `seconds`, loading not counted.

    The smallest shapes of each kind are measured even where that takes longer.
    Raises what `load_engine` raises, and `ConfigError` where the limits of the instance leave too
    few shapes to tell its costs apart.
    """
    # The prefix cache is how a prompt gets a past; what it costs a step is part of the figures.
    config = replace(config, prefix_cache=True)
    _check(config)
    loaded = load(config)
    limits = _limits(config, loaded)
    engine = make_engine(config, loaded, listener=None)
    stage = Stage(engine, loaded.pool, loaded.vocab_size, clock)
    measurement = Measuring(stage, seconds, clock, progress).run(_shapes(limits))
    fitted = fit_costs(measurement, limits.blocks * limits.block_size)
    profile = _profile(loaded, fitted, this_machine(loaded.pool.device))
    return Report(profile, fitted, measurement)


def _check(config: InstanceConfig) -> None:
    for field, value, least in (
        ("max_batch_tokens", config.max_batch_tokens, _LEAST_BATCH_TOKENS),
        ("max_batch_seqs", config.max_batch_seqs, _LEAST_SEQS),
    ):
        if value < least:
            raise ConfigError(
                f"{field} is {value}; a profile needs at least {least}",
                field=field,
                limit=str(least),
            )


def _limits(config: InstanceConfig, loaded: LoadedEngine) -> Limits:
    return Limits(
        max_tokens=config.max_batch_tokens,
        max_seqs=config.max_batch_seqs,
        max_len=loaded.max_model_len,
        blocks=loaded.pool.num_blocks,
        block_size=config.block_size,
    )


def _shapes(limits: Limits) -> list[StepShape]:
    if limits.max_len < _LEAST_LEN:
        raise ConfigError(
            f"the longest sequence has {limits.max_len} tokens, by the model, --max-model-len or "
            f"the KV pool; a profile needs at least {_LEAST_LEN}",
            field="max_model_len",
            limit=str(_LEAST_LEN),
        )
    return grid(limits)


def _profile(loaded: LoadedEngine, fitted: FittedCosts, machine: Machine) -> Profile:
    layout, cost = loaded.layout, fitted.cost
    return Profile(
        model=loaded.model,
        gpu=machine.device,
        policy="pdserve",
        origin=f"pdserve profile, pdserve {__version__}",
        kv=KvShape(
            layers=layout.layers,
            kv_heads=layout.kv_heads,
            head_dim=layout.head_dim,
            dtype_bytes=DTYPE_BYTES[layout.dtype],
        ),
        by_tp={cost.tp: _by_tp(cost)},
        kv_tokens={(cost.tp, cost.pp): cost.kv_tokens},
        fit=_fit(fitted, machine, layout.dtype),
    )


def _by_tp(cost: InstanceCost) -> TpCost:
    return TpCost(cost.prefill, cost.decode, cost.decode_large, cost.large_from)


def _fit(fitted: FittedCosts, machine: Machine, dtype: str) -> Mapping[str, Any]:
    errors = {str(kind): asdict(each) for kind, each in fitted.errors.items()}
    samples = sum(fitted.errors[kind].steps for kind in Kind if kind in fitted.errors)
    return {
        "relative_errors": errors,
        "samples": samples,
        "machine": asdict(machine) | {"dtype": dtype},
        "date": datetime.now(UTC).date().isoformat(),
    }
