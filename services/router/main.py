"""The router's process."""

import asyncio
import logging
from pathlib import Path

from pdserve import logs
from pdserve.cluster.static import StaticDiscovery
from pdserve.config import RouterConfig
from pdserve.errors import ConfigError
from pdserve.metrics import MetricsEndpoint
from pdserve.process import StopSignal, announce
from services.router.model import ServedModel, load_served_model
from services.router.router import Router

log = logging.getLogger(__name__)


def run(config: RouterConfig) -> int:
    """Serves until SIGTERM or SIGINT, drains, and returns the exit status 0.

    Once it listens it prints one line, `ready role=router …`. Raises `PdserveError` where the
    configuration or the model is wrong, or a port is taken.
    """
    logs.configure(config.log_level)
    if not config.instances:
        raise ConfigError("instances is empty; it must name a YAML file", field="instances")
    discovery = StaticDiscovery.from_file(Path(config.instances))
    model = load_served_model(config.model)
    asyncio.run(_serve(config, model, discovery))
    return 0


async def _serve(config: RouterConfig, model: ServedModel, discovery: StaticDiscovery) -> None:
    stop = StopSignal()
    with MetricsEndpoint(config.host, config.metrics_port) as endpoint:
        router = Router(config, model, discovery, endpoint.registry)
        await router.serve(stop.asked, lambda: _announce(router, endpoint))
    log.info("router stopped", extra={"router": router.name})


def _announce(router: Router, endpoint: MetricsEndpoint) -> None:
    announce(
        "router",
        router.name,
        router.address,
        endpoint.url,
        router.incarnation,
        router.http.url if router.http else "",
    )
