"""How the limits of the client's key stand, in the headers that OpenAI has for it.

https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
"""

import math

from aiohttp import web

from services.router.admission.account import Allowance
from services.router.admission.visit import Visit

# Of requests that generate.
VISIT = web.RequestKey("visit", Visit)


async def tell_limits(request: web.Request, response: web.StreamResponse) -> None:
    """Adds the headers to a response whose own are about to be sent."""
    visit = request.get(VISIT)
    if visit is None:
        return
    limits = {"requests": visit.account.requests, "tokens": visit.account.tokens}
    for name, allowance in limits.items():
        if allowance is not None:
            response.headers.update(_headers(name, allowance))


def _headers(name: str, allowance: Allowance) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{name}": str(math.floor(allowance.limit)),
        f"x-ratelimit-remaining-{name}": str(math.floor(allowance.remaining)),
        f"x-ratelimit-reset-{name}": duration(allowance.reset_s),
    }


def duration(seconds: float) -> str:
    """Such as `1h2m3s`, `1.5s`, `20ms` or `0s`, rounded up to milliseconds."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if hours or minutes else ""]
    return f"{''.join(parts)}{rest / 1000:g}s"
