"""A router that follows a script, call by call, and both clients behind one form."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from pdserve.client import Answer, AsyncClient, Client, Piece
from pdserve.errors import PdserveError
from pdserve.rpc.errors import DETAIL_KEY, error_detail, status_code
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2

FINISHED = router_pb2.Finished(
    reason=types_pb2.FINISH_REASON_STOP,
    prompt_tokens=3,
    output_tokens=2,
    cached_tokens=1,
    stop="!",
    ledger=types_pb2.Ledger(router_queue_s=0.25, decode_steps_s=0.5, ttft_s=0.25, total_s=0.75),
    attempts=[
        types_pb2.Attempt(
            number=1,
            rung="remote",
            prefill="p",
            decode="d",
            candidates=[types_pb2.ScoredPlacement(rung="remote", ttft_s=0.5, verdict="best")],
        )
    ],
)


def delta(text: str, *tokens: types_pb2.Token) -> router_pb2.GenerateEvent:
    return router_pb2.GenerateEvent(delta=router_pb2.Delta(text=text, tokens=tokens))


PIECES = (
    delta("Hel", types_pb2.Token(id=7, index=0)),
    delta("", types_pb2.Token(id=8, index=1, logprob=-0.5)),
    delta("lo"),
)
END = router_pb2.GenerateEvent(ref=types_pb2.RequestRef(request_id="its-id"), finished=FINISHED)
ANSWER = (*PIECES, END)


@dataclass
class FlakyRouter(router_pb2_grpc.InferenceServicer):
    """Answers each call of Generate with the next of `scripts`: events, or an error to end with."""

    scripts: list[list[Any]] = field(default_factory=list)
    requests: list[router_pb2.GenerateRequest] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    # How many calls have ended, for whatever reason.
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    address: str = ""

    def Generate(self, request, context):  # noqa: N802
        context.add_callback(self.ended.release)
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        for step in self.scripts.pop(0) if self.scripts else ANSWER:
            if isinstance(step, PdserveError):
                detail = error_detail(step).SerializeToString()
                context.set_trailing_metadata(((DETAIL_KEY, detail),))
                context.abort(status_code(step), str(step))
            if step == "hang":
                ended = threading.Event()
                if context.add_callback(ended.set):
                    ended.wait(30)
                return
            yield step

    def ListModels(self, request, context):  # noqa: N802
        model = router_pb2.Model(id="tiny", context_length=200, vocab_size=257, ready=True)
        return router_pb2.ListModelsResponse(models=[model])


@contextmanager
def listening(*scripts: list[Any]) -> Iterator[FlakyRouter]:
    """Serves on a free port, in threads."""
    router = FlakyRouter(list(scripts))
    server = grpc.server(ThreadPoolExecutor(4))
    router_pb2_grpc.add_InferenceServicer_to_server(router, server)
    router.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield router
    finally:
        server.stop(0).wait()


class Blocking:
    """`Client`, for tests that hold for both."""

    def ask_closed(self, address: str, method: str, *words: Any) -> Any:
        client = Client(address)
        client.close()
        return getattr(client, method)(*words)

    def ask(self, address: str, method: str, *words: Any, options=None, **settings: Any) -> Any:
        with Client(address, **settings) as client:
            return getattr(client, method)(*words, **options or {})

    def read(
        self, address: str, most: int | None = None, **settings: Any
    ) -> tuple[list[Piece], Answer | None]:
        """The first pieces of a stream, or all and the answer."""
        pieces = []
        with Client(address, **settings) as client, client.stream("x") as stream:
            for piece in stream:
                pieces.append(piece)
                if len(pieces) == most:
                    return pieces, None
            return pieces, stream.answer


class OnALoop:
    """`AsyncClient`, for tests that hold for both."""

    def ask_closed(self, address: str, method: str, *words: Any) -> Any:
        async def ask() -> Any:
            client = AsyncClient(address)
            await client.close()
            return await getattr(client, method)(*words)

        return asyncio.run(ask())

    def ask(self, address: str, method: str, *words: Any, options=None, **settings: Any) -> Any:
        async def ask() -> Any:
            async with AsyncClient(address, **settings) as client:
                return await getattr(client, method)(*words, **options or {})

        return asyncio.run(ask())

    def read(
        self, address: str, most: int | None = None, **settings: Any
    ) -> tuple[list[Piece], Answer | None]:
        async def read() -> tuple[list[Piece], Answer | None]:
            pieces = []
            async with AsyncClient(address, **settings) as client, client.stream("x") as stream:
                async for piece in stream:
                    pieces.append(piece)
                    if len(pieces) == most:
                        return pieces, None
                return pieces, stream.answer

        return asyncio.run(read())
