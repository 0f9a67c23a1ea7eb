"""Runs one service in this process, as a container does."""

import importlib
from types import ModuleType

from pdserve.config import InstanceConfig, RouterConfig
from pdserve.errors import ConfigError


def run_service(role: str, config: InstanceConfig | RouterConfig) -> int:
    """Runs the service `role` until SIGTERM or SIGINT; returns its exit status."""
    return int(_service(role).run(config))


def _service(role: str) -> ModuleType:
    # By name: this is where the program is put together. The library that services are made of
    # must not depend on them, and the other commands must not load what only a service needs.
    try:
        return importlib.import_module(f"services.{role}.main")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError(
            f"`pdserve {role}` runs a model and needs torch: pip install 'pdserve[engine]'"
        ) from error
