"""What the router does for its clients, whichever protocol they speak."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

from pdserve.config import RouterConfig
from pdserve.errors import DeadlineError, OverloadedError, PdserveError
from pdserve.key_limits import Client
from pdserve.rpc.arrival import arrived_at
from pdserve.rpc.v1 import router_pb2, types_pb2
from services.router.admission.door import Door
from services.router.admission.gate import Admitted
from services.router.admission.visit import Visit
from services.router.dispatcher import Dispatcher
from services.router.explanations import Explanations, Record
from services.router.fleet import Fleet
from services.router.intake import Intake, request_id_of
from services.router.ledger import Timeline
from services.router.live import LiveRequest
from services.router.metrics import RouterMetrics
from services.router.model import ServedModel
from services.router.orchestrator import Orchestrator
from services.router.registry import RequestRegistry

log = logging.getLogger(__name__)

# Hands one event to the client, and waits while the client does not keep up. False: nothing of the
# event has gone out, since it makes nothing that the client could see.
Write: TypeAlias = Callable[[router_pb2.GenerateEvent], Awaitable[bool]]


class Serving:
    """Generates text, and tells what is served; the gRPC and the HTTP API are forms of it."""

    def __init__(
        self,
        config: RouterConfig,
        model: ServedModel,
        fleet: Fleet,
        dispatcher: Dispatcher,
        orchestrator: Orchestrator,
        registry: RequestRegistry,
        door: Door,
        metrics: RouterMetrics,
        explanations: Explanations,
        instances: Callable[[], list[router_pb2.InstanceStatus]],
        links: Callable[[], list[router_pb2.LinkStatus]],
    ) -> None:
        self._request_timeout_s = config.request_timeout_s
        self._model = model
        self._intake = Intake(config, model)
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._orchestrator = orchestrator
        self._registry = registry
        self._door = door
        self._metrics = metrics
        self._explanations = explanations
        self._instances = instances
        self._links = links

    def visit(self, client: Client, runs: int = 1) -> AbstractContextManager[Visit]:
        """A request of `client` that is made of `runs`: as many calls of `generate`, at once."""
        return self._door.visit(client, runs)

    async def generate(
        self,
        request: router_pb2.GenerateRequest,
        timeout_s: float | None,
        write: Write,
        visit: Visit,
    ) -> None:
        """Writes every event of the answer, `finished` last, within `timeout_s`.

        A `timeout_s` of None, or of more than `request_timeout_s`, is `request_timeout_s`.
        Cancelling ends everything that the request started; so does a `write` that raises, which
        it may with `ClientGoneError`. Raises the `PdserveError` that ended the request.
        """
        received = arrived_at()
        client = visit.client.name
        caller = {"client": client} if client else {}
        with self._metrics.request() as outcome:
            request_id = request_id_of(request)
            try:
                with (
                    self._explanations.record(request, request_id, client, received) as record,
                    self._registry.enter(client, request_id),
                ):
                    visit.enter()
                    last = await self._generate(
                        request, request_id, record, timeout_s, write, visit
                    )
            except PdserveError as error:
                refused = isinstance(error, OverloadedError)
                words = "request refused" if refused else "request failed"
                log.info(words, extra={"request_id": request_id, **_failure(error), **caller})
                raise
            log.info("request finished", extra={**_summary(last, received), **caller})
            name = types_pb2.FinishReason.Name(last.finished.reason)
            outcome.label = name.removeprefix("FINISH_REASON_").lower()

    def model(self) -> router_pb2.Model:
        """The one model, and whether it can be served now."""
        return router_pb2.Model(
            id=self._model.id,
            context_length=self._context_limit(),
            vocab_size=self._model.vocab_size,
            ready=self.ready(),
        )

    def ready(self) -> bool:
        """Whether a request that came now could be placed."""
        return self._dispatcher.ready() and not self._registry.closed

    def cluster(self) -> router_pb2.GetClusterResponse:
        """Every instance as the router sees it."""
        return router_pb2.GetClusterResponse(
            instances=self._instances(),
            running_requests=self._door.running,
            queued_requests=self._door.queued,
            links=self._links(),
            discovery_problem=self._fleet.problem,
        )

    def explain(self, request_id: str, client: str) -> router_pb2.ExplainResponse:
        """Why a request of `client` went as it did. Raises `UnknownRequestError`."""
        return self._explanations.find(request_id, client)

    async def _generate(
        self,
        request: router_pb2.GenerateRequest,
        request_id: str,
        record: Record,
        timeout_s: float | None,
        write: Write,
        visit: Visit,
    ) -> router_pb2.GenerateEvent:
        allowed_s = min(timeout_s or self._request_timeout_s, self._request_timeout_s)
        try:
            async with asyncio.timeout(allowed_s):
                live = await self._accept(request, request_id, record, allowed_s, visit.client)
                async with self._door.run(visit, live) as admitted:
                    return await self._stream(live, record, write, admitted)
        except TimeoutError as error:
            text = f"the request's deadline of {allowed_s:g} s has passed"
            raise DeadlineError(text, limit=f"{allowed_s:g} s") from error

    async def _accept(
        self,
        request: router_pb2.GenerateRequest,
        request_id: str,
        record: Record,
        allowed_s: float,
        client: Client,
    ) -> LiveRequest:
        generation = await self._intake.accept(
            request, request_id, self._context_limit(), client.limits.priority
        )
        detokenizer = self._model.tokenizer.detokenizer(continuing=generation.continues_prompt)
        timeline = Timeline(record.received)
        deadline = record.received + allowed_s
        live = LiveRequest(generation, detokenizer, timeline, deadline, self._metrics)
        record.accepted(live)
        return live

    async def _stream(
        self, live: LiveRequest, record: Record, write: Write, admitted: Admitted
    ) -> router_pb2.GenerateEvent:
        """Writes all events; returns the last."""
        producer = asyncio.create_task(self._orchestrator.run(live))
        try:
            while (event := await live.outbox.get()) is not None:
                admitted.produced(len(event.delta.tokens))
                if await write(event):
                    live.written()
            reason = await producer
        finally:
            producer.cancel()
            await asyncio.gather(producer, return_exceptions=True)
        # Tokens of which the client has seen nothing reach it with the end.
        live.written()
        last = live.finished(reason)
        record.finished(last.finished)
        await write(last)
        return last

    def _context_limit(self) -> int:
        """Longest prompt + output that can be served now, tokens."""
        return min(self._model.context_length, self._fleet.view().context_limit or 2**31)


def _failure(error: PdserveError) -> dict[str, str | float]:
    """What the log tells of an error; of a refusal, what was exceeded and for how long."""
    facts: dict[str, str | float] = {"reason": error.reason, "detail": str(error)}
    if isinstance(error, OverloadedError):
        facts |= {"limit": error.field, "retry_after_s": round(error.retry_after_s, 3)}
    return facts


def _summary(event: router_pb2.GenerateEvent, received: float) -> dict[str, str | int | float]:
    """The facts about a finished request that belong in the log; `pdserve.workload` reads them."""
    finished = event.finished
    arrived_at = time.time() - (time.monotonic() - received)
    return {
        "request_id": event.ref.request_id,
        "arrived_at": round(arrived_at, 6),
        "prompt_tokens": finished.prompt_tokens,
        "output_tokens": finished.output_tokens,
        "attempts": len(finished.attempts),
        "ttft_s": round(finished.ledger.ttft_s, 4),
        "total_s": round(finished.ledger.total_s, 4),
    }
