"""The router's process."""

import asyncio
import gc
import logging

from pdserve import logs
from pdserve.cluster.discovery import Discovery
from pdserve.cluster.source import make_discovery
from pdserve.config import RouterConfig
from pdserve.metrics import MetricsEndpoint, read_in_loop
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
    discovery = make_discovery(config.instances, config.rack_label)
    model = load_served_model(config.model)
    # All that is there by now stays. To look through it for garbage takes 40 ms, and every stream
    # would wait for that again and again.
    gc.collect()
    gc.freeze()
    asyncio.run(_serve(config, model, discovery))
    return 0


async def _serve(config: RouterConfig, model: ServedModel, discovery: Discovery) -> None:
    stop = StopSignal()
    with MetricsEndpoint(config.host, config.metrics_port) as endpoint:
        router = Router(config, model, discovery, endpoint.registry)
        endpoint.healthy = read_in_loop(lambda: router.serving)
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
