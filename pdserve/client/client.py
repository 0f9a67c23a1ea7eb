"""The client for programs that block."""

from types import TracebackType
from typing import TypeVar, Unpack

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2_grpc

from pdserve.client.answer import Answer
from pdserve.client.cluster import Cluster, Model, cluster_of, models_of
from pdserve.client.connection import CALL_TIMEOUT_S, HEALTH, SERVING, Connection
from pdserve.client.exchange import Exchange
from pdserve.client.explanation import Explanation, explanation_of
from pdserve.client.failures import failure_of
from pdserve.client.request import Options, Prompt
from pdserve.client.stream import Stream
from pdserve.rpc.channel import open_blocking_channel
from pdserve.rpc.tls import ClientTls
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Client:
    """Calls the router at `address` (host:port), from any number of threads.

    `timeout_s` is the deadline of an answer whose request names none; every other call has ten
    seconds. `retries` is how often a request is sent again when the router has no room for it, or
    is not there, and nothing of the answer has come. Use it in a `with` statement, or close it.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str = "",
        tls: ClientTls | None = None,
        timeout_s: float = 600.0,
        retries: int = 0,
    ) -> None:
        self._connection = Connection(address, api_key, tls, timeout_s, retries)
        self._channel = open_blocking_channel(address, tls)
        self._inference = router_pb2_grpc.InferenceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> Answer:
        """The whole answer. Raises the `PdserveError` that ended the request."""
        with self.stream(prompt, **options) as stream:
            for _ in stream:
                pass
            return stream.answer

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Stream:
        """The answer piece by piece. Raises `InvalidRequestError` for what cannot be sent."""
        return Stream(self._inference.Generate, Exchange(self._connection, prompt, options))

    def models(self) -> tuple[Model, ...]:
        """What is served."""
        return models_of(self._ask(self._inference.ListModels, router_pb2.ListModelsRequest()))

    def cluster(self) -> Cluster:
        """Every instance as the router sees it, and the links between them."""
        return cluster_of(self._ask(self._inference.GetCluster, router_pb2.GetClusterRequest()))

    def explain(self, request_id: str) -> Explanation:
        """Why a request went as it did. Raises `UnknownRequestError` for one that is not known."""
        request = router_pb2.ExplainRequest(request_id=request_id)
        return explanation_of(self._ask(self._inference.Explain, request))

    def health(self) -> bool:
        """Whether the router answers at all."""
        return self._status() is not None

    def ready(self) -> bool:
        """Whether the router can serve a request now."""
        return self._status() == SERVING

    def close(self) -> None:
        """Ends every call that runs."""
        self._connection.close()
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _status(self) -> int | None:
        self._connection.check_open()
        try:
            answer = self._health.Check(HEALTH, timeout=CALL_TIMEOUT_S)  # type: ignore[attr-defined]
        except grpc.RpcError:
            return None
        return int(answer.status)

    def _ask(
        self, method: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request
    ) -> Response:
        self._connection.check_open()
        metadata = self._connection.metadata
        try:
            return method(request, timeout=CALL_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            raise failure_of(error, self._connection.address, self._connection.tls) from error
