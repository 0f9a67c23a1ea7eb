"""When null instances send tokens: at once, or all of them together in steps, as an engine does."""

import asyncio


class Steps:
    """Ends a step every `seconds`, for everyone who waits; runs while somebody does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end: asyncio.Future[None] | None = None

    async def next(self) -> None:
        """Returns when the step that runs now ends."""
        loop = asyncio.get_running_loop()
        if self._end is None:
            self._end = loop.create_future()
            # On a fixed grid: a late step does not delay those after it.
            now = loop.time()
            loop.call_at((now // self._seconds + 1) * self._seconds, self._finish)
        await asyncio.shield(self._end)

    def _finish(self) -> None:
        end, self._end = self._end, None
        assert end is not None
        end.set_result(None)


class Pace:
    """How fast the tokens of a request come: its `seed` says so, in ms a token; 0: at once.

    A seed is the one number that every router hands through as it is.
    """

    def __init__(self) -> None:
        self._steps: dict[int, Steps] = {}

    async def wait(self, seed: int) -> None:
        """Returns when the next token of a request with this seed is due."""
        if seed:
            if seed not in self._steps:
                self._steps[seed] = Steps(seed / 1000)
            await self._steps[seed].next()
