"""What is seen of one answer while it comes."""

import time
from collections.abc import Sequence


class Timeline:
    """When an answer's chunks arrived, in seconds of `time.perf_counter`, and what was in them.

    A target calls `chunk` for each piece that holds output, and `usage` with what the server says
    of the token counts. The answer itself is kept only where a later turn will need it.
    """

    __slots__ = (
        "_keep",
        "arrivals",
        "cached_tokens",
        "chunk_tokens",
        "ids",
        "output_tokens",
        "prompt_tokens",
        "sent",
        "texts",
    )

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self.sent = time.perf_counter()
        self.arrivals: list[float] = []
        self.chunk_tokens = 0
        self.texts: list[str] = []
        self.ids: list[int] = []
        self.prompt_tokens: int | None = None
        self.output_tokens: int | None = None
        self.cached_tokens: int | None = None

    def chunk(self, now: float, text: str, tokens: int = 1, ids: Sequence[int] = ()) -> None:
        """Output arrived: `tokens` of it, as far as the target can tell."""
        self.arrivals.append(now)
        self.chunk_tokens += tokens
        if self._keep:
            self.texts.append(text)
            self.ids += ids

    def usage(self, prompt_tokens: int, output_tokens: int, cached_tokens: int | None) -> None:
        """The server's own count."""
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.cached_tokens = cached_tokens

    @property
    def tokens(self) -> int:
        """Output tokens: as the server counts them, else as the chunks do."""
        return self.chunk_tokens if self.output_tokens is None else self.output_tokens
