"""Runs an order and writes its answer, whole or as a stream."""

import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pdserve.errors import PdserveError
from pdserve.rpc.http_errors import http_error
from pdserve.rpc.v1 import router_pb2
from pdserve.tasks import task_group
from services.router.admission.visit import Visit
from services.router.http.answer import ChoiceText, explanation_of, usage_of
from services.router.http.form import Form
from services.router.http.json_text import to_json
from services.router.http.order import Order
from services.router.http.sse import EventStream
from services.router.serving import Serving

OnEvent = Callable[[int, router_pb2.GenerateEvent], Awaitable[bool]]


class Answering:
    """The answer to one order: what all its parts have in common, and how it is written."""

    def __init__(
        self, serving: Serving, order: Order, form: Form, model: str, visit: Visit
    ) -> None:
        self._serving = serving
        self._order = order
        self._form = form
        self._visit = visit
        self._common = {
            "id": f"{form.id_prefix}{order.request_id}",
            "created": int(time.time()),
            "model": model,
        }
        # All chunks but the last differ in their choices only.
        head = to_json({**self._common, "object": form.chunk_object, "choices": []})
        self._chunk_head = head.removesuffix("]}")
        self._chunk_tail = '],"usage":null}' if order.include_usage else "]}"

    async def whole(self) -> dict[str, Any]:
        """The body of an answer in one piece. Raises `PdserveError`."""
        order = self._order
        choices = [
            ChoiceText(index, keep_tokens=order.logprobs) for index in range(len(order.runs))
        ]

        async def on_event(index: int, event: router_pb2.GenerateEvent) -> bool:
            await choices[index].take(event)
            return True

        await self._run(on_event)
        ends = [choice.end for choice in choices]
        return {
            **self._common,
            "object": self._form.whole_object,
            "choices": [self._form.choice(choice) for choice in choices],
            "usage": usage_of(ends, order.choices_a_prompt),
        } | self._explanation(ends)

    async def stream(self, events: EventStream) -> None:
        """Sends the answer in pieces.

        An error before the first piece is raised, as `PdserveError`; a later one is sent as the
        last event. Raises `ClientGoneError`.
        """
        ends: dict[int, router_pb2.Finished] = {}
        opened: set[int] = set()

        async def on_event(index: int, event: router_pb2.GenerateEvent) -> bool:
            chunks = self._chunks(index, event, opened)
            if event.HasField("finished"):
                ends[index] = event.finished
            if chunks:
                await events.send(*map(self._chunk, chunks))
            return bool(chunks)

        try:
            await self._run(on_event)
        except PdserveError as error:
            if not events.begun:
                raise
            await events.send(to_json(http_error(error, self._order.names).body()))
            return
        await self._send_last(events, [ends[index] for index in sorted(ends)])

    async def _run(self, on_event: OnEvent) -> None:
        """Runs every choice; the first that fails ends the others."""
        async with task_group() as tasks:
            for index, run in enumerate(self._order.runs):
                write = functools.partial(on_event, index)
                timeout_s = self._order.terms.timeout_s
                tasks.create_task(self._serving.generate(run, timeout_s, write, self._visit))

    def _chunks(
        self, index: int, event: router_pb2.GenerateEvent, opened: set[int]
    ) -> list[dict[str, Any]]:
        """The chunks' choices that an event makes; none for tokens that make no text yet."""
        chunks = []
        if index not in opened:
            opened.add(index)
            if opening := self._form.opening(index):
                chunks.append(opening)
        if event.HasField("finished"):
            chunks.append(self._form.closing(index, event.finished))
        elif event.delta.text or self._order.logprobs:
            chunks.append(self._form.delta(index, event.delta))
        return chunks

    def _chunk(self, choice: Mapping[str, Any]) -> str:
        return f"{self._chunk_head}{to_json(choice)}{self._chunk_tail}"

    async def _send_last(self, events: EventStream, ends: list[router_pb2.Finished]) -> None:
        """What is told of all choices together, and the end of the stream."""
        last: dict[str, Any] = {}
        if self._order.include_usage:
            last["usage"] = usage_of(ends, self._order.choices_a_prompt)
        last |= self._explanation(ends)
        if last:
            head = {**self._common, "object": self._form.chunk_object, "choices": []}
            await events.send(to_json(head | last))
        await events.done()

    def _explanation(self, ends: list[router_pb2.Finished]) -> dict[str, Any]:
        return {"pdserve": explanation_of(ends)} if self._order.terms.explain else {}
