"""An OpenAI-compatible server: vLLM, SGLang, pdserve and many others."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

from pdserve.bench.answer import Answer, error_text, refused
from pdserve.bench.target import (
    ORDINARY_TOKENS,
    Facts,
    IdPrompt,
    Prompt,
    RequestError,
    Send,
    TextPrompt,
    TextScale,
    TokenRange,
)
from pdserve.bench.timeline import Timeline
from pdserve.bench.words import WORDS
from pdserve.errors import InvalidRequestError, PdserveError, UnauthenticatedError, UnavailableError

Api = Literal["completions", "chat"]

_ROUTES: Mapping[Api, str] = {"completions": "/completions", "chat": "/chat/completions"}
_PREPARE_TIMEOUT_S = 120.0
# Below that of common servers (uvicorn: 5 s), so that none closes a connection that is just used.
_KEEPALIVE_S = 3.0
# Words of the prompts that find out how a server counts.
_FEW, _MANY = 8, 32
_FIXED_LENGTH = "output lengths are the model's own: it takes no ignore_eos"
_NO_USAGE = "tokens are counted as chunks: it takes no stream_options"


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How an OpenAI-compatible server is asked.

    `url` ends where its routes begin, mostly in /v1. `model` empty: the first one listed.
    `text`: prompts are text, also where token ids would do. `headers` go with every request.
    """

    url: str
    api: Api = "completions"
    model: str = ""
    text: bool = False
    tokens: TokenRange = ORDINARY_TOKENS
    temperature: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Extras:
    """Fields that not every server takes."""

    fixed_length: bool
    usage: bool

    def fields(self, output_tokens: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.fixed_length:
            found |= {"ignore_eos": True, "min_tokens": output_tokens}
        if self.usage:
            found["stream_options"] = {"include_usage": True}
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        return (() if self.fixed_length else (_FIXED_LENGTH,)) + (
            () if self.usage else (_NO_USAGE,)
        )


# What is tried in turn.
_EXTRAS = (_Extras(True, True), _Extras(False, True), _Extras(True, False), _Extras(False, False))


class HttpTarget:
    """Streams answers over HTTP, a connection for each request that runs; see `Target`."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._text = options.text or options.api == "chat"
        self._url = options.url.rstrip("/")
        self._model = options.model
        self._extras = _EXTRAS[0]
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """The URL."""
        return self._url

    async def prepare(self) -> Facts:
        """See `Target.prepare`: the model, the fields that it takes, and how long words are."""
        try:
            async with asyncio.timeout(_PREPARE_TIMEOUT_S):
                self._model = self._model or await self._first_model()
                answer = await self._probe_extras()
                if not self._text:
                    return Facts(self._model, self._options.tokens, self._extras.notes)
                scale = await self._probe_scale(answer)
        except TimeoutError as error:
            text = f"{self._url} gave no answer within {_PREPARE_TIMEOUT_S:.0f} s"
            raise UnavailableError(text) from error
        return Facts(self._model, scale, self._extras.notes)

    def request(self, prompt: Prompt, output_tokens: int) -> Send:
        """See `Target.request`."""
        body = json.dumps(self._fields(prompt, output_tokens), separators=(",", ":")).encode()

        async def send(timeline: Timeline) -> None:
            await self._send(body, timeline)

        return send

    async def close(self) -> None:
        """See `Target.close`."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _fields(self, prompt: Prompt, output_tokens: int) -> dict[str, Any]:
        return {
            "model": self._model,
            **self._input(prompt),
            "max_tokens": output_tokens,
            "temperature": self._options.temperature,
            "stream": True,
            **self._extras.fields(output_tokens),
        }

    def _input(self, prompt: Prompt) -> dict[str, Any]:
        if isinstance(prompt, IdPrompt):
            return {"prompt": prompt.ids}
        if self._options.api == "completions":
            return {"prompt": _as_text(prompt.turns)}
        roles = ("user", "assistant")
        return {
            "messages": [
                {"role": roles[number % 2], "content": text}
                for number, text in enumerate(prompt.turns)
            ]
        }

    async def _send(self, body: bytes, timeline: Timeline) -> None:
        answer = Answer(timeline)
        url = self._url + _ROUTES[self._options.api]
        try:
            async with self._connections().post(url, data=body) as response:
                if response.status != 200:
                    raise refused(response.status, await _reason(response))
                if response.content_type != "text/event-stream":
                    text = f"an answer of type {response.content_type} instead of a stream"
                    raise RequestError("failed", text)
                async for received in response.content.iter_any():
                    answer.feed(received)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _broken(error) from error
        answer.end()

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
                # Whoever sends gives up by cancelling.
                timeout=aiohttp.ClientTimeout(total=None),
                headers={
                    "Content-Type": "application/json",
                    "Accept": "text/event-stream",
                    "Accept-Encoding": "identity",
                    **self._options.headers,
                },
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _first_model(self) -> str:
        try:
            async with self._connections().get(f"{self._url}/models") as response:
                if response.status != 200:
                    raise self._refusal(refused(response.status, await _reason(response)))
                listed = await response.json(content_type=None)
                return str(listed["data"][0]["id"])
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"{self._url}: {_broken(error).reason}") from error
        except (ValueError, TypeError, KeyError, IndexError) as error:
            text = f"{self._url}/models lists no model; is it an OpenAI-compatible API? Its URL "
            raise UnavailableError(f"{text}mostly ends in /v1; --model names a model") from error

    async def _probe_extras(self) -> Timeline:
        """A short answer with as many of the optional fields as the server takes."""
        for extras in _EXTRAS[:-1]:
            self._extras = extras
            try:
                return await self._probe(self._probe_prompt(_FEW))
            except InvalidRequestError:
                continue
        self._extras = _EXTRAS[-1]
        return await self._probe(self._probe_prompt(_FEW))

    async def _probe_scale(self, short: Timeline) -> TextScale:
        """What a word costs, and what the chat template adds: as longer prompts are counted."""
        words = " ".join(WORDS[:_FEW])
        long = await self._probe(self._probe_prompt(_MANY))
        turns = await self._probe(TextPrompt((words, f" {words}", words)))
        counts = [each.prompt_tokens for each in (short, long, turns)]
        few, many, three = (count or 0 for count in counts)
        per_word = (many - few) / (_MANY - _FEW)
        if None in counts or per_word <= 0:
            return TextScale()
        turn = three - few - 2 * _FEW * per_word
        return TextScale(max(0.0, few - per_word * _FEW), per_word, max(0.0, turn))

    def _probe_prompt(self, words: int) -> Prompt:
        if self._text:
            return TextPrompt((" ".join(WORDS[:words]),))
        low = self._options.tokens.low
        return IdPrompt(list(range(low, min(low + words, self._options.tokens.high))))

    async def _probe(self, prompt: Prompt) -> Timeline:
        """One answer of a token; `InvalidRequestError` for what the server does not take."""
        timeline = Timeline()
        try:
            await self.request(prompt, 1)(timeline)
        except RequestError as error:
            raise self._refusal(error) from error
        return timeline

    def _refusal(self, error: RequestError) -> PdserveError:
        """The error that ends the command where a server does not even answer one request."""
        kind: type[PdserveError] = UnavailableError
        hint = ""
        if error.status in (400, 422):
            kind = InvalidRequestError
        elif error.status in (401, 403):
            kind = UnauthenticatedError
        elif error.status == 404:
            hint = "; the URL of an OpenAI-compatible API mostly ends in /v1"
        return kind(f"{self._url}: {error.reason}{hint}")


def _as_text(turns: Sequence[str]) -> str:
    """One text: an answer goes on without a gap, as the model wrote it."""
    parts = [turns[0]]
    for number, text in enumerate(turns[1:], 1):
        parts.append(text if number % 2 else f" {text}")
    return "".join(parts)


async def _reason(response: aiohttp.ClientResponse) -> str:
    """What the body of an error says."""
    text = (await response.content.read(1 << 16)).decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except ValueError:
        return error_text(text)
    return error_text(document.get("error", document) if isinstance(document, dict) else document)


def _broken(error: Exception) -> RequestError:
    """What a connection died of, in the same few words each time."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return RequestError("failed", "the host has no address")
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ConnectionRefusedError):
        return RequestError("failed", "connection refused")
    if isinstance(cause, ConnectionResetError | aiohttp.ServerDisconnectedError):
        return RequestError("failed", "connection closed")
    if isinstance(cause, aiohttp.ClientPayloadError):
        return RequestError("failed", "cut off")
    if isinstance(cause, OSError):
        return RequestError("failed", f"connection failed: {cause.strerror or cause}")
    return RequestError("failed", f"no HTTP: {str(error) or type(error).__name__}")
