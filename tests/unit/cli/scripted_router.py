"""A router that answers every client with what the test gave it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from pdserve.errors import PdserveError
from pdserve.rpc.errors import DETAIL_KEY, status_code
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc, types_pb2

FINISHED = router_pb2.Finished(
    reason=types_pb2.FINISH_REASON_LENGTH,
    prompt_tokens=31,
    output_tokens=7,
    cached_tokens=16,
    ledger=types_pb2.Ledger(
        router_queue_s=0.001,
        prefill_queue_s=0.002,
        prefill_compute_s=0.040,
        first_token_out_s=0.0005,
        decode_admission_s=0.001,
        transfer_wait_s=0.002,
        transfer_s=0.003,
        decode_steps_s=0.150,
        ttft_s=0.0435,
        total_s=0.1995,
        tpot_s=0.026,
        transfer_bytes=2_500_000,
        transfer_wall_s=0.0125,
    ),
    attempts=[
        types_pb2.Attempt(number=1, rung="remote", prefill="p-0", decode="d-0", failure="d-0 died"),
        types_pb2.Attempt(number=2, rung="local", decode="d-1", reason="no prefill instance is up"),
    ],
)


@dataclass
class ScriptedRouter(router_pb2_grpc.InferenceServicer):
    """Streams `pieces`, then `error`, or waits for `release` where it is set, then FINISHED."""

    pieces: Sequence[str] = ("Hello", ", ", "world")
    error: PdserveError | None = None
    on_call: Callable[[], None] | None = None
    address: str = ""
    requests: list[router_pb2.GenerateRequest] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)

    def Generate(self, request, context):  # noqa: N802
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        for piece in self.pieces:
            yield router_pb2.GenerateEvent(delta=router_pb2.Delta(text=piece))
        if self.on_call is not None:
            self.on_call()
            ended = threading.Event()
            if context.add_callback(ended.set):
                ended.wait(30)
        if self.error is not None:
            detail = types_pb2.ErrorDetail(reason=self.error.reason, field=self.error.field)
            context.set_trailing_metadata(((DETAIL_KEY, detail.SerializeToString()),))
            context.abort(status_code(self.error), str(self.error))
        yield router_pb2.GenerateEvent(finished=FINISHED)

    def ListModels(self, request, context):  # noqa: N802
        model = router_pb2.Model(id="tiny", context_length=8192, vocab_size=49152, ready=True)
        return router_pb2.ListModelsResponse(models=[model])

    def GetCluster(self, request, context):  # noqa: N802
        report = types_pb2.LoadReport(
            info=types_pb2.InstanceInfo(name="its-own-name", role=types_pb2.ROLE_DECODE),
            running_requests=3,
            blocks=types_pb2.BlockCounts(
                free=100_000, active=200_000, cached=300_000, quarantined=400_000
            ),
        )
        states = [
            router_pb2.InstanceStatus(
                name="decode-0",
                role=types_pb2.ROLE_DECODE,
                address="decode-0.some-cluster.internal:7801",
                state="up",
                report=report,
            ),
            router_pb2.InstanceStatus(
                name="prefill-0",
                role=types_pb2.ROLE_PREFILL,
                address="127.0.0.1:2",
                state="down",
                detail="[no] answer",
            ),
        ]
        return router_pb2.GetClusterResponse(instances=states, running_requests=3)


@contextmanager
def listening(router: ScriptedRouter) -> Iterator[ScriptedRouter]:
    """Serves `router` on a free port, in threads: the command under test has its own loop."""
    server = grpc.server(ThreadPoolExecutor(4))
    router_pb2_grpc.add_InferenceServicer_to_server(router, server)
    router.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield router
    finally:
        server.stop(0).wait()
