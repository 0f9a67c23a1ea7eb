"""API keys: who may use the router, and how much of it.

The file has one key a line, `key` or `name: key`, and behind it what limits it
(`pdserve.key_limits`): `name: key concurrent=4 priority=low`. Blank lines and lines that begin with
# do not count. Names are what logs and limits know a key by; the key itself is never shown.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from pdserve.errors import ConfigError, UnauthenticatedError
from pdserve.followed_file import FollowedFiles
from pdserve.key_limits import Client, parse_limits

_MAX_BYTES = 1 << 20
_LINE = re.compile(r"(?:([!-~]{1,64}):[ \t]+)?+([\"']?)([!-~]{8,512})\2(?:[ \t]+(.*))?")
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
_WHERE = "Authorization: Bearer KEY"
# As gRPC metadata and as an HTTP header.
HEADER = "authorization"


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    """The metadata that shows `key` to a router; none for no key."""
    return ((HEADER, f"Bearer {key}"),) if key else ()


class ApiKeys:
    """The keys in a file, read again whenever it changes.

    Raises `ConfigError`, which names the file and the line, where they cannot be read at first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Looking a key up by a digest that only this process can compute takes a time that tells
        # nothing about how much of the key was right.
        self._secret = secrets.token_bytes(32)
        self._clients = FollowedFiles("API keys", (path,), self._read)

    def authenticate(self, authorization: str | None) -> Client:
        """Whose key is in the value of an `Authorization` header.

        Raises `UnauthenticatedError` where there is none, or an unknown one.
        """
        match = _BEARER.fullmatch(authorization or "")
        if match is None:
            raise UnauthenticatedError(f"an API key is needed: {_WHERE}")
        client = self._clients.value.get(self._digest(match[1]))
        if client is None:
            raise UnauthenticatedError("the API key is not known")
        return client

    async def follow(self) -> None:
        """Takes over what changes in the file until it is cancelled.

        A file that cannot be read any more changes nothing: the keys before it stay.
        """
        await self._clients.follow()

    def refresh(self) -> None:
        """Reads the file if it has changed; logs what is wrong with it, once."""
        self._clients.refresh()

    def _read(self) -> Mapping[bytes, Client]:
        return {self._digest(key): client for key, client in read_keys(self._path).items()}

    def _digest(self, key: str) -> bytes:
        data = key.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(data, key=self._secret, digest_size=32).digest()


def read_keys(path: Path) -> dict[str, Client]:
    """Whose each key is; one without a name is named after its line. Raises `ConfigError`."""
    clients: dict[str, Client] = {}
    names: set[str] = set()
    for number, raw in enumerate(_lines(path), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key, client = _read_line(line, number, f"{path}, line {number}")
        if key in clients or client.name in names:
            raise _wrong(f"{path}, line {number}: this key or its name is there twice")
        clients[key] = client
        names.add(client.name)
    if not clients:
        raise _wrong(f"{path}: there is no key in it, so nobody could use the router")
    return clients


def _read_line(line: str, number: int, where: str) -> tuple[str, Client]:
    match = _LINE.fullmatch(line)
    if match is None:
        limit = "8 to 512 printable ASCII characters without blanks"
        raise _wrong(f"{where}: must be a key of {limit}, or name: key; limits follow it", limit)
    name, key, limits = match[1] or f"line-{number}", match[3], match[4] or ""
    try:
        return key, Client(name, parse_limits(limits.split()))
    except ConfigError as error:
        raise _wrong(f"{where}: {error}", error.limit) from error


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _wrong(f"{path}: has more than {_MAX_BYTES} bytes", str(_MAX_BYTES))
        return path.read_text("utf-8").splitlines()
    except OSError as error:
        raise _wrong(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        # Without its cause, which quotes the file.
        raise _wrong(f"{path}: not a text file") from None


def _wrong(text: str, limit: str = "") -> ConfigError:
    return ConfigError(text, field="api_keys", limit=limit)
