"""A client of the router's gRPC API for Python programs, in two forms that are equal in function.

`Client` blocks; `AsyncClient` is for asyncio. Neither needs torch. Errors are those of
`pdserve.errors`, besides `NoRouterError`, which is an `UnavailableError`.
"""

from pdserve.client.answer import Answer, FinishReason, Piece, Token, TopLogprob, Usage
from pdserve.client.async_client import AsyncClient
from pdserve.client.async_stream import AsyncStream
from pdserve.client.client import Client
from pdserve.client.cluster import Blocks, Cluster, Instance, Link, Load, Model
from pdserve.client.explanation import Explanation, Failure
from pdserve.client.failures import NoRouterError
from pdserve.client.placement import Attempt, Ledger, ScoredPlacement
from pdserve.client.request import Message, Options, Priority, Prompt, Slo
from pdserve.client.stream import Stream
from pdserve.rpc.tls import ClientTls

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Attempt",
    "Blocks",
    "Client",
    "ClientTls",
    "Cluster",
    "Explanation",
    "Failure",
    "FinishReason",
    "Instance",
    "Ledger",
    "Link",
    "Load",
    "Message",
    "Model",
    "NoRouterError",
    "Options",
    "Piece",
    "Priority",
    "Prompt",
    "ScoredPlacement",
    "Slo",
    "Stream",
    "Token",
    "TopLogprob",
    "Usage",
]
