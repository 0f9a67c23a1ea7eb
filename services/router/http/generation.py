"""`POST /v1/completions` and `POST /v1/chat/completions`."""

from collections.abc import Callable

from aiohttp import web

from pdserve.config import RouterConfig
from pdserve.errors import PdserveError
from pdserve.rpc.http_errors import http_error
from services.router.http.answering import Answering
from services.router.http.authentication import CLIENT
from services.router.http.body import read_object
from services.router.http.chat_request import chat_order
from services.router.http.completions_request import completions_order
from services.router.http.errors import ID
from services.router.http.fields import Fields
from services.router.http.form import ChatForm, CompletionForm, Form
from services.router.http.headers import REQUEST_ID, terms_of
from services.router.http.limits import VISIT
from services.router.http.order import Desk, Order
from services.router.http.responses import error_response, json_response
from services.router.http.sse import EventStream
from services.router.model import ServedModel
from services.router.serving import Serving

# A client that takes nothing for so long will not come back to it.
WRITE_TIMEOUT_S = 30.0


class GenerationEndpoints:
    """The two ways in which OpenAI's API asks for text."""

    def __init__(self, config: RouterConfig, model: ServedModel, serving: Serving) -> None:
        self._max_body_bytes = config.max_body_bytes
        # Choices run at the same time, or wait for each other; more could never be here at once.
        self._max_choices = config.max_running + config.max_queued
        self._model = model
        self._serving = serving

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Continues texts."""
        order = await self._order(request, completions_order)
        form = CompletionForm(self._model.tokenizer, logprobs=order.logprobs)
        return await self._answer(request, order, form)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answers a conversation."""
        order = await self._order(request, chat_order)
        form = ChatForm(self._model.tokenizer, logprobs=order.logprobs)
        return await self._answer(request, order, form)

    async def _order(
        self, request: web.Request, order_of: Callable[[Fields, Desk], Order]
    ) -> Order:
        terms = terms_of(request.headers)
        document = await read_object(request, self._max_body_bytes)
        return order_of(Fields(document), Desk(request[ID], terms, self._max_choices))

    async def _answer(self, request: web.Request, order: Order, form: Form) -> web.StreamResponse:
        headers = {REQUEST_ID: order.request_id}
        with self._serving.visit(request[CLIENT], len(order.runs)) as visit:
            request[VISIT] = visit
            answering = Answering(self._serving, order, form, self._model.id, visit)
            try:
                if not order.stream:
                    return json_response(await answering.whole())
                events = EventStream(request, headers, WRITE_TIMEOUT_S)
                await answering.stream(events)
            except PdserveError as error:
                return error_response(http_error(error, order.names), headers)
            return events.response
