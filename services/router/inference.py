"""The gRPC API that clients call."""

from typing import TYPE_CHECKING

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


class InferenceServicer:
    """`pdserve.v1.Inference`: the methods carry the names of the contract."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @servicer_method
    async def Generate(  # noqa: N802
        self, request: router_pb2.GenerateRequest, context: "GenerateContext"
    ) -> None:
        """Streams the generated text; cancelling the call ends everything that it started."""
        await self._serving.generate(request, context.time_remaining(), context.write)

    @servicer_method
    async def ListModels(  # noqa: N802
        self,
        request: router_pb2.ListModelsRequest,  # noqa: ARG002 - it has no fields
        context: "ModelsContext",  # noqa: ARG002
    ) -> router_pb2.ListModelsResponse:
        """The one model, and whether it can be served now."""
        return router_pb2.ListModelsResponse(models=[self._serving.model()])

    @servicer_method
    async def GetCluster(  # noqa: N802
        self,
        request: router_pb2.GetClusterRequest,  # noqa: ARG002 - it has no fields
        context: "ClusterContext",  # noqa: ARG002
    ) -> router_pb2.GetClusterResponse:
        """Every instance as the router sees it."""
        return self._serving.cluster()
