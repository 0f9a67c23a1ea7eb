"""Who may use the API: its routes are for those with a key, where keys are needed."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pdserve.api_keys import HEADER, ApiKeys
from pdserve.key_limits import Client

# Whose key was shown; nobody's where none is needed.
CLIENT = web.RequestKey("client", Client)
_OF_THE_API = "/v1/"


def authentication(keys: ApiKeys | None) -> Middleware:
    """Lets requests to the API pass with a key alone; raises `UnauthenticatedError`.

    What tells of the process (`/health`, `/ready`, `/metrics`) needs none.
    """

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[CLIENT] = Client()
        if keys is not None and request.path.startswith(_OF_THE_API):
            request[CLIENT] = keys.authenticate(request.headers.get(HEADER))
        return await handler(request)

    return authenticate
