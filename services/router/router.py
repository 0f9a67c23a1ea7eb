"""The router put together: everything that runs in its process but signals and logs."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from pdserve.api_keys import ApiKeys
from pdserve.cluster.discovery import Discovery
from pdserve.config import RouterConfig
from pdserve.process import new_incarnation
from pdserve.rpc.server import RpcServer
from pdserve.rpc.tls_identity import door_identity, link_identity
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc
from pdserve.tasks import task_group
from services.router.admission.door import Door
from services.router.attempt import Attempts
from services.router.breakers import Breakers
from services.router.canaries import Canaries
from services.router.canary import Canary
from services.router.cut_off import instance_statuses
from services.router.dispatcher import Dispatcher
from services.router.explanations import Explanations
from services.router.fleet import Fleet
from services.router.http.server import HttpServer
from services.router.inference import InferenceServicer
from services.router.knowledge import Knowledge
from services.router.link_status import link_statuses
from services.router.metrics import RouterMetrics
from services.router.model import ServedModel
from services.router.orchestrator import Orchestrator
from services.router.placement.make import make_placer
from services.router.registry import RequestRegistry
from services.router.releaser import Releaser
from services.router.retry_budget import RetryBudget
from services.router.serving import Serving

_HEALTH_PAUSE_S = 0.05
# How long calls that outlive the drain may take to notice that they are cancelled.
_CANCEL_GRACE_S = 2.0


class Router:
    """One router over the instances of `discovery`; its metrics go to `collectors`.

    `address` is that of the gRPC API; `http` serves the HTTP API, None where there is none.
    """

    def __init__(
        self,
        config: RouterConfig,
        model: ServedModel,
        discovery: Discovery,
        collectors: CollectorRegistry,
    ) -> None:
        self._config = config
        self.incarnation = new_incarnation()
        knowledge = Knowledge(config)
        links, door = link_identity(config), door_identity(config)
        self.fleet = Fleet(discovery, config, model, knowledge, links)
        self.requests = RequestRegistry(config.max_running + config.max_queued)
        self.releaser = Releaser()
        self._metrics = RouterMetrics(collectors)
        self._metrics.watch_instances(self.fleet.count)
        self._door = Door(config, self._metrics)
        self.breakers = Breakers(config.breaker_failures, config.breaker_cooldown_s)
        self._metrics.watch_breakers(self.breakers.count)
        placer = make_placer(config, knowledge, self.breakers.open_pairs)
        self._dispatcher = Dispatcher(self.fleet, placer, config.placement_timeout_s)
        attempts = Attempts(self.releaser, self.breakers)
        orchestrator = Orchestrator(
            self._dispatcher,
            attempts,
            RetryBudget(config.retry_share),
            self._metrics,
            knowledge,
            config.max_attempts,
        )
        self._canaries = Canaries(
            config,
            self.fleet,
            knowledge.links,
            self.breakers,
            Canary(model, config.canary_tokens, attempts, self.breakers),
            self._metrics,
        )
        self._keys = ApiKeys(Path(config.api_keys)) if config.api_keys else None
        self._followed = [each for each in (self._keys, links, door) if each]
        names = [each.full_name for each in router_pb2.DESCRIPTOR.services_by_name.values()]
        self._server = RpcServer(config.host, config.port, names, door)
        self.address = self._server.address
        self.name = config.name or f"router-{self._server.port}"
        serving = Serving(
            config,
            model,
            self.fleet,
            self._dispatcher,
            orchestrator,
            self.requests,
            self._door,
            self._metrics,
            Explanations(config.explain_requests, self.name),
            partial(instance_statuses, self.fleet, self.breakers),
            partial(link_statuses, self.fleet, knowledge.links, self.breakers),
        )
        servicer = InferenceServicer(serving, self._keys)
        self._server.register(router_pb2_grpc.add_InferenceServicer_to_server, servicer)
        self.http = (
            HttpServer(config, model, serving, self._keys, collectors, door)
            if config.http
            else None
        )

    @property
    def serving(self) -> bool:
        """What health says: whether some placement is possible."""
        return self._server.serving

    async def serve(self, stop: asyncio.Event, on_listening: Callable[[], None]) -> None:
        """Serves until `stop` is set, then drains: running requests may finish, none may begin."""
        async with task_group() as tasks:
            watching = tasks.create_task(self.fleet.run())
            reporting = tasks.create_task(self._report_health())
            trying = tasks.create_task(self._canaries.run())
            following = tasks.create_task(self._follow_files())
            try:
                await self._server.start()
                if self.http:
                    await self.http.start()
                on_listening()
                await stop.wait()
                reporting.cancel()
                trying.cancel()
                await self._drain()
            finally:
                await self._server.stop(0)
                if self.http:
                    await self.http.stop()
            # Calls that were cut end properly while their instances are still connected.
            await self._until_idle(_CANCEL_GRACE_S)
            await self.releaser.close()
            watching.cancel()
            following.cancel()

    async def _follow_files(self) -> None:
        async with task_group() as tasks:
            for each in self._followed:
                tasks.create_task(each.follow())

    async def _report_health(self) -> None:
        """SERVING as long as some placement is possible."""
        serving = False
        while True:
            changed = self.fleet.changed()
            if self._dispatcher.ready() != serving:
                serving = not serving
                await self._server.set_serving(serving)
            await changed.wait()
            # Load reports are many, and seldom change the answer.
            await asyncio.sleep(_HEALTH_PAUSE_S)

    async def _drain(self) -> None:
        self.requests.close()
        self._door.close()
        await self._server.set_serving(False)
        await self._until_idle(self._config.drain_grace_s)

    async def _until_idle(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.requests.idle()
