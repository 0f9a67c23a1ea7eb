"""A certificate, its key and the authorities of others: read from PEM files and checked."""

import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pdserve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file, and the option that names it."""

    option: str
    path: str

    def read(self) -> bytes:
        """What it holds. Raises `ConfigError`."""
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise self.wrong(error.strerror or "cannot be read") from error

    def wrong(self, text: str) -> ConfigError:
        """The error that says what is wrong with it."""
        return ConfigError(f"{self.option}: {self.path}: {text}", field=self.option)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain and its key, PEM; `names` are the hosts that the certificate is for."""

    cert: bytes
    key: bytes = field(repr=False)
    names: tuple[str, ...]


def read_authorities(file: PemFile) -> bytes:
    """Certificates of authorities. Raises `ConfigError`, which names the option and the file."""
    pem = file.read()
    _certificates(file, pem)
    return pem


def read_key_pair(cert: PemFile, key: PemFile, *, as_server: bool, as_client: bool) -> KeyPair:
    """A pair that a server or a client, or one that is both, can show.

    `names` are known of servers only. Raises `ConfigError`, which names the option and the file,
    where one of them cannot be read, the key is another's, or peers would refuse the certificate:
    it has expired, or has another purpose.
    """
    pem = cert.read()
    chain = _certificates(cert, pem)
    secret = key.read()
    # Whether it would be refused, a handshake with oneself tells.
    server = server_context(cert, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    if as_server:
        _trust(client, chain)
    if as_client:
        client.load_cert_chain(cert.path, key.path, _no_passphrase)
        _trust(server, chain)
    try:
        names = _names_shown(server, client)
    except ssl.SSLCertVerificationError as error:
        raise cert.wrong(f"peers would refuse it: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise cert.wrong(f"peers would refuse it: {error.reason}") from error
    return KeyPair(pem, secret, names)


def server_context(cert: PemFile, key: PemFile, ca: PemFile | None = None) -> ssl.SSLContext:
    """For connections to a server that shows this pair.

    With `ca`, clients must show a certificate from there. Raises `ConfigError`, which names the
    option and the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert.path, key.path, _no_passphrase)
    except (ssl.SSLError, ValueError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise key.wrong(f"is not the key of {cert.option}, {cert.path}") from error
        raise key.wrong("holds no private key, or one with a passphrase") from error
    except OSError as error:
        raise key.wrong(error.strerror or "cannot be read") from error
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=_certificates(ca, ca.read()))
        # Who resumes a session shows no certificate, and may outlive the authority of the last.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _certificates(file: PemFile, pem: bytes) -> str:
    """`pem` as text, after a look at what is in it."""
    try:
        text = pem.decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise file.wrong("holds no certificate in PEM form") from error
    return text


def _no_passphrase() -> str:
    # Without this, OpenSSL asks for one on the terminal.
    raise ValueError("the key has a passphrase")


def _trust(context: ssl.SSLContext, chain: str) -> None:
    """Wants to see a certificate, and trusts this one for itself, whoever it is from."""
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=chain)


def _names_shown(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str, ...]:
    """The names that a server shows in a handshake, which is held in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    # Hello, the server's certificate, the client's certificate.
    for end in (asking, answering, asking, answering):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    shown: Mapping[str, Any] = asking.getpeercert() or {}
    return tuple(
        str(ip_address(name)) if kind == "IP Address" else name
        for kind, name in shown.get("subjectAltName", ())
        if kind in ("DNS", "IP Address")
    )
