"""`GET /v1/pdserve/requests/{id}`."""

from dataclasses import asdict

from aiohttp import web

from pdserve.client.explanation import explanation_of
from services.router.http.authentication import CLIENT
from services.router.http.responses import json_response
from services.router.serving import Serving


class ExplainEndpoint:
    """Tells why a request went as it did, in the fields of `pdserve.client`."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def get(self, request: web.Request) -> web.Response:
        """One request that the client has sent; raises `UnknownRequestError`."""
        explanation = self._serving.explain(request.match_info["id"], request[CLIENT].name)
        return json_response(asdict(explanation_of(explanation)))
