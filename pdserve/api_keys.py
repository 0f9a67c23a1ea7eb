"""API keys: who may use the router.

The file has one key a line, `key` or `name: key`; blank lines and lines that begin with # do not
count. Names are what logs and limits know a key by; the key itself is never shown.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from pdserve.errors import ConfigError, UnauthenticatedError
from pdserve.followed_file import FollowedFiles

_MAX_BYTES = 1 << 20
_NAMED = re.compile(r"(?:([!-~]{1,64}):[ \t]+)?([\"']?)([!-~]{8,512})\2")
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
        self._names = FollowedFiles("API keys", (path,), self._read)

    def authenticate(self, authorization: str | None) -> str:
        """The name of the key in the value of an `Authorization` header.

        Raises `UnauthenticatedError` where there is none, or an unknown one.
        """
        match = _BEARER.fullmatch(authorization or "")
        if match is None:
            raise UnauthenticatedError(f"an API key is needed: {_WHERE}")
        name = self._names.value.get(self._digest(match[1]))
        if name is None:
            raise UnauthenticatedError("the API key is not known")
        return name

    async def follow(self) -> None:
        """Takes over what changes in the file until it is cancelled.

        A file that cannot be read any more changes nothing: the keys before it stay.
        """
        await self._names.follow()

    def refresh(self) -> None:
        """Reads the file if it has changed; logs what is wrong with it, once."""
        self._names.refresh()

    def _read(self) -> Mapping[bytes, str]:
        return {self._digest(key): name for key, name in read_keys(self._path).items()}

    def _digest(self, key: str) -> bytes:
        data = key.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(data, key=self._secret, digest_size=32).digest()


def read_keys(path: Path) -> dict[str, str]:
    """Name by key; a key without one is named after its line. Raises `ConfigError`."""
    keys: dict[str, str] = {}
    for number, raw in enumerate(_lines(path), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _NAMED.fullmatch(line)
        where = f"{path}, line {number}"
        if match is None:
            limit = "8 to 512 printable ASCII characters without blanks"
            raise _wrong(f"{where}: must be a key of {limit}, or name: key", limit)
        name, key = match[1] or f"line-{number}", match[3]
        if key in keys or name in keys.values():
            raise _wrong(f"{where}: this key or its name is there twice")
        keys[key] = name
    if not keys:
        raise _wrong(f"{path}: there is no key in it, so nobody could use the router")
    return keys


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
