"""Flags that say how long things take: measured profiles, or what is worked out from a model."""

import argparse
from collections.abc import Mapping

from pdserve.errors import ConfigError
from pdserve.latency.hardware import Gpu
from pdserve.latency.profile import Profile, built_in_profiles, read_profile
from pdserve.latency.roofline import Roofline
from pdserve.latency.source import LatencySource
from pdserve.models.config import ModelConfig
from pdserve.models.read import read_config
from pdserve.models.source import resolve_model

_DTYPES = ("bfloat16", "float16", "float32")
LATENCY_SOURCES = ("roofline", "silicon")


def add_latency_flags(parser: argparse.ArgumentParser) -> None:
    """Adds `--profile` and, without one, the model and how its costs are worked out."""
    group = parser.add_argument_group("latency")
    group.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="FILE",
        help="measured costs: a file of `pdserve profile`, or a built-in one "
        f"({', '.join(built_in_profiles())}); once for each kind of GPU",
    )
    group.add_argument(
        "--model",
        help="without a profile: a directory with config.json, a .gguf file, a built-in name or a "
        "hub id, of which only the shape is read",
    )
    group.add_argument(
        "--latency",
        default="roofline",
        choices=LATENCY_SOURCES,
        help="without a profile: from the hardware's figures (default), or from operator "
        "measurements of the package aiconfigurator-core",
    )
    group.add_argument(
        "--dtype", default="bfloat16", choices=_DTYPES, help="weights and KV (default: bfloat16)"
    )


def load_profiles(arguments: argparse.Namespace) -> list[Profile]:
    """The profiles that `--profile` names; `ConfigError` where two are of different models."""
    profiles = [read_profile(name) for name in arguments.profile]
    models = {profile.model for profile in profiles}
    if len(models) > 1:
        raise ConfigError(
            f"profiles are of different models: {', '.join(sorted(models))}", field="profile"
        )
    return profiles


def load_sources(
    arguments: argparse.Namespace, gpus: Mapping[str, Gpu], node_gpus: int
) -> dict[str, LatencySource]:
    """The costs on each of these kinds of GPU, with up to `node_gpus` of them in a node.

    Raises `ConfigError` where neither a profile nor a model says what they are.
    """
    sources: dict[str, LatencySource] = {
        profile.gpu: profile for profile in load_profiles(arguments)
    }
    unknown = [kind for kind in gpus if kind not in sources]
    if not unknown:
        return {kind: sources[kind] for kind in gpus}
    if sources:
        raise ConfigError(
            f"the cluster has {unknown[0]}, and the profiles are of {', '.join(sorted(sources))}",
            field="profile",
        )
    if arguments.model is None:
        raise ConfigError("give --profile, or --model to work the costs out", field="profile")
    source = resolve_model(arguments.model, weights=False)
    config = read_config(source)
    return {
        kind: _worked_out(arguments, source.id, config, gpu, node_gpus)
        for kind, gpu in gpus.items()
    }


def _worked_out(
    arguments: argparse.Namespace, name: str, config: ModelConfig, gpu: Gpu, node_gpus: int
) -> LatencySource:
    roofline = Roofline(name, config, arguments.dtype, gpu, max_tp=node_gpus)
    if arguments.latency == "roofline":
        return roofline
    if arguments.dtype != "bfloat16":
        raise ConfigError(
            f"dtype is {arguments.dtype}; --latency silicon knows bfloat16", field="dtype"
        )
    from pdserve.latency.silicon import Silicon

    return Silicon(arguments.model, config, gpu, max_tp=node_gpus)
