"""What load balancers, orchestrators and Prometheus ask: `/health`, `/ready`, `/metrics`."""

import asyncio

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from services.router.http.responses import json_response
from services.router.serving import Serving


class MonitoringEndpoints:
    """Tells of the process, not of any request."""

    def __init__(self, serving: Serving, collectors: CollectorRegistry) -> None:
        self._serving = serving
        self._collectors = collectors

    async def health(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler gets it
        """200 as long as the process answers at all."""
        return json_response({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """200 while a request could be placed, else 503."""
        ready = self._serving.ready()
        return json_response({"ready": ready}, status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """What the metrics port serves."""
        # Collectors read /proc, which must not hold up the event loop.
        body = await asyncio.to_thread(generate_latest, self._collectors)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
