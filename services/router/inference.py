"""The gRPC API that clients call."""

from typing import TYPE_CHECKING, Any

from pdserve.api_keys import HEADER, ApiKeys
from pdserve.key_limits import Client
from pdserve.rpc.errors import servicer_method
from pdserve.rpc.v1 import router_pb2
from services.router.serving import Serving

if TYPE_CHECKING:
    from grpc import aio

    GenerateContext = aio.ServicerContext[router_pb2.GenerateRequest, router_pb2.GenerateEvent]
    ModelsContext = aio.ServicerContext[router_pb2.ListModelsRequest, router_pb2.ListModelsResponse]
    ClusterContext = aio.ServicerContext[
        router_pb2.GetClusterRequest, router_pb2.GetClusterResponse
    ]
    ExplainContext = aio.ServicerContext[router_pb2.ExplainRequest, router_pb2.ExplainResponse]


class InferenceServicer:
    """`pdserve.v1.Inference`: the methods carry the names of the contract."""

    def __init__(self, serving: Serving, keys: ApiKeys | None) -> None:
        self._serving = serving
        self._keys = keys

    @servicer_method
    async def Generate(  # noqa: N802
        self, request: router_pb2.GenerateRequest, context: "GenerateContext"
    ) -> None:
        """Streams the generated text; cancelling the call ends everything that it started."""

        async def write(event: router_pb2.GenerateEvent) -> bool:
            await context.write(event)
            return True

        with self._serving.visit(self._authenticate(context)) as visit:
            await self._serving.generate(request, context.time_remaining(), write, visit)

    @servicer_method
    async def ListModels(  # noqa: N802
        self,
        request: router_pb2.ListModelsRequest,  # noqa: ARG002 - it has no fields
        context: "ModelsContext",
    ) -> router_pb2.ListModelsResponse:
        """The one model, and whether it can be served now."""
        self._authenticate(context)
        return router_pb2.ListModelsResponse(models=[self._serving.model()])

    @servicer_method
    async def GetCluster(  # noqa: N802
        self,
        request: router_pb2.GetClusterRequest,  # noqa: ARG002 - it has no fields
        context: "ClusterContext",
    ) -> router_pb2.GetClusterResponse:
        """Every instance as the router sees it."""
        self._authenticate(context)
        return self._serving.cluster()

    @servicer_method
    async def Explain(  # noqa: N802
        self, request: router_pb2.ExplainRequest, context: "ExplainContext"
    ) -> router_pb2.ExplainResponse:
        """Where a request's time went, and why it was placed as it was."""
        client = self._authenticate(context)
        return self._serving.explain(request.request_id, client.name)

    def _authenticate(self, context: "aio.ServicerContext[Any, Any]") -> Client:
        """Whose API key was shown; nobody's where no keys are needed."""
        if self._keys is None:
            return Client()
        metadata = dict(context.invocation_metadata() or ())
        return self._keys.authenticate(str(metadata.get(HEADER, "")))
