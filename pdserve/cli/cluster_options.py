"""The options of instances and router as those of a local cluster of both."""

import argparse
from collections.abc import Mapping

from pdserve.cli.local_cluster import ClusterSpec
from pdserve.config import InstanceConfig, RouterConfig
from pdserve.options import PREFIX, add_options, load

# What the cluster gives its processes by itself, and what it takes for the router alone.
_DECIDED = ("name", "advertise_host", "instances")
_OF_ROUTER = ("host", "port", "metrics_port")


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of both; one that both have is one flag."""
    # The later help text stands, both read the flag.
    parser.conflict_handler = "resolve"
    add_options(parser, InstanceConfig, without=_DECIDED)
    add_options(parser, RouterConfig, without=_DECIDED)


def load_cluster_spec(
    flags: argparse.Namespace, environ: Mapping[str, str], prefill: int = 1, decode: int = 1
) -> ClusterSpec:
    """The cluster that flags and environment describe; a configuration file is the instances'.

    With `colocated` every instance is a decode instance that does both phases: as many as there
    would be apart, so that both ways use the same cores.
    """
    router = load(RouterConfig, *_without(("config", *_DECIDED), flags, environ))
    instance = load(InstanceConfig, *_without((*_OF_ROUTER, *_DECIDED), flags, environ))
    if router.colocated:
        prefill, decode = 0, prefill + decode
    return ClusterSpec(prefill, decode, instance, router)


def _without(
    names: tuple[str, ...], flags: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[argparse.Namespace, dict[str, str]]:
    kept = {name: value for name, value in vars(flags).items() if name not in names}
    variables = {f"{PREFIX}{name.upper()}" for name in names}
    rest = {name: value for name, value in environ.items() if name not in variables}
    return argparse.Namespace(**kept), rest
