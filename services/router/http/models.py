"""`GET /v1/models` and `GET /v1/models/{id}`."""

import time
from typing import Any

from aiohttp import web

from services.router.http.responses import json_response
from services.router.model import ServedModel
from services.router.serving import Serving


class ModelEndpoints:
    """Tells which model there is: one."""

    def __init__(self, model: ServedModel, serving: Serving) -> None:
        self._model = model
        self._serving = serving
        self._created = int(time.time())

    async def list(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler gets it
        """All models."""
        return json_response({"object": "list", "data": [self._described()]})

    async def get(self, request: web.Request) -> web.Response:
        """One model, by any of its names; raises `UnknownModelError`."""
        self._model.check_name(request.match_info["id"])
        return json_response(self._described())

    def _described(self) -> dict[str, Any]:
        model = self._serving.model()
        return {
            "id": model.id,
            "object": "model",
            "created": self._created,
            "owned_by": "pdserve",
            # As vLLM says it; OpenAI does not.
            "max_model_len": model.context_length,
        }
