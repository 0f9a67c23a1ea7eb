"""Reads the chunks of an OpenAI-compatible answer, of completions or of chat."""

import json
import time
from typing import Any

from pdserve.bench.sse import EventReader
from pdserve.bench.target import RequestError
from pdserve.bench.timeline import Timeline

_DONE = b"[DONE]"
_MOST_REASON_CHARS = 200


class Answer:
    """Notes on a timeline what comes of one answer; methods raise `RequestError`."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._events = EventReader()
        self._finished = False

    def feed(self, received: bytes) -> None:
        """Bytes have come; all that is complete in them came now."""
        now = time.perf_counter()
        for event in self._events.feed(received):
            if event != _DONE:
                self._read(event, now)
            else:
                self._finished = True

    def end(self) -> None:
        """The stream has ended. That is an error before the answer has."""
        if not self._finished:
            raise RequestError("failed", "cut off")
        if not self._timeline.arrivals and self._timeline.tokens:
            # All of it was tokens without text, such as end tokens: this is when they were known.
            self._timeline.chunk(time.perf_counter(), "", 0)

    def _read(self, event: bytes, now: float) -> None:
        try:
            chunk = json.loads(event)
            if "error" in chunk:
                raise refused(_status(chunk["error"]), error_text(chunk["error"]))
            if choices := chunk["choices"]:
                self._choice(choices[0], now)
            if usage := chunk.get("usage"):
                self._usage(usage)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            shown = event[:80].decode("utf-8", "replace")
            raise RequestError("failed", f"not a chunk of an answer: {shown}") from error

    def _choice(self, choice: dict[str, Any], now: float) -> None:
        text = choice.get("text")
        if text is None:
            delta = choice.get("delta") or {}
            # Servers that parse reasoning send it under either name.
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            text = delta.get("content") or thought
        if text:
            self._timeline.chunk(now, text)
        if choice.get("finish_reason"):
            self._finished = True

    def _usage(self, usage: dict[str, Any]) -> None:
        details = usage.get("prompt_tokens_details") or {}
        self._timeline.usage(
            int(usage["prompt_tokens"]),
            int(usage.get("completion_tokens") or 0),
            details.get("cached_tokens"),
        )


def refused(status: int, reason: str) -> RequestError:
    """The error of a request that was answered with an HTTP status; 0: nobody said which."""
    if status == 429:
        return RequestError("rejected", "HTTP 429", status)
    if status in (408, 504):
        return RequestError("timeout", f"HTTP {status}", status)
    return RequestError("failed", f"HTTP {status}: {reason}" if status else reason, status)


def error_text(error: Any) -> str:
    """The words of an error object, in the shapes that servers give it."""
    message = error.get("message", error) if isinstance(error, dict) else error
    text = str(message).strip()
    return text if len(text) <= _MOST_REASON_CHARS else f"{text[:_MOST_REASON_CHARS]}…"


def _status(error: Any) -> int:
    """The status that an error in mid-stream stands for: a number, or a name of pdserve's."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str):
        return {"overloaded": 429, "deadline_exceeded": 504}.get(code, 0)
    return code if isinstance(code, int) else 0
