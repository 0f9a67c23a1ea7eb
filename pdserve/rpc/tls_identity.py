"""What a process shows and trusts on TLS connections, from files that are followed."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from pdserve.config import InstanceConfig, RouterConfig
from pdserve.followed_file import FollowedFiles
from pdserve.rpc.certificates import PemFile, read_authorities, read_key_pair, server_context
from pdserve.rpc.tls import ClientTls


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """Where an identity is read from.

    With `ca`, peers must show certificates from there; without, nobody needs to show one. A `link`
    is between processes that call each other: the certificate is shown to both clients and servers.
    """

    cert: PemFile
    key: PemFile
    ca: PemFile | None
    link: bool
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class _Certificates:
    """One reading of the files."""

    client: ClientTls
    server: grpc.ServerCertificateConfiguration
    http: ssl.SSLContext


class TlsIdentity:
    """The newest certificates that could be read, for servers and channels.

    Connections that are open stay as they are; those that begin take what is newest. Raises
    `ConfigError`, which names the option and the file, where they cannot be used at first.
    """

    def __init__(self, files: IdentityFiles) -> None:
        self._files = files
        paths = [Path(each.path) for each in (files.cert, files.key, files.ca) if each]
        self._read = FollowedFiles("TLS certificates", paths, self._certificates)

    @property
    def client(self) -> ClientTls:
        """For a channel that is opened now."""
        return self._read.value.client

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC server."""
        served = self._read.value

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            # Called in a thread of gRPC's for each connection; None: as before.
            nonlocal served
            if served is self._read.value:
                return None
            served = self._read.value
            return served.server

        mutual = self._files.ca is not None
        return grpc.dynamic_ssl_server_credentials(
            served.server,
            renewed,  # type: ignore[arg-type]  # which leaves out None
            mutual,
        )

    def http_context(self) -> ssl.SSLContext:
        """For a server of HTTP over TLS."""
        context = server_context(self._files.cert, self._files.key, self._files.ca)

        # Called at the beginning of each handshake, whether a client names the server or not.
        def renew(connection: ssl.SSLObject, *_: object) -> None:
            connection.context = self._read.value.http

        context.sni_callback = renew
        return context

    async def follow(self) -> None:
        """Takes over what changes in the files until it is cancelled."""
        await self._read.follow()

    def refresh(self) -> None:
        """Reads the files if one has changed; what cannot be used changes nothing."""
        self._read.refresh()

    def _certificates(self) -> _Certificates:
        files = self._files
        pair = read_key_pair(files.cert, files.key, as_server=True, as_client=files.link)
        ca = read_authorities(files.ca) if files.ca else None
        client = ClientTls(ca, pair.cert, pair.key, files.server_name)
        server = grpc.ssl_server_certificate_configuration([(pair.key, pair.cert)], ca)
        return _Certificates(client, server, server_context(files.cert, files.key, files.ca))


def link_identity(config: InstanceConfig | RouterConfig) -> TlsIdentity | None:
    """For connections between processes; None: they are plain. Raises `ConfigError`."""
    if not config.tls_cert:
        return None
    files = IdentityFiles(
        PemFile("tls_cert", config.tls_cert),
        PemFile("tls_key", config.tls_key),
        PemFile("tls_ca", config.tls_ca),
        link=True,
        server_name=config.tls_server_name,
    )
    return TlsIdentity(files)


def link_client(config: InstanceConfig | RouterConfig) -> ClientTls | None:
    """For a caller that shows itself as the process would; None: plain. Raises `ConfigError`."""
    return ClientTls.read(config.tls_ca, config.tls_cert, config.tls_key, config.tls_server_name)


def door_identity(config: RouterConfig) -> TlsIdentity | None:
    """For connections of clients to the router; None: they are plain. Raises `ConfigError`."""
    files = _door_files(config)
    return TlsIdentity(files) if files else None


def door_client(config: RouterConfig) -> ClientTls | None:
    """For a client with the files of the router itself, which knows its certificate, from whoever.

    The router may be called at any address. Raises `ConfigError`.
    """
    files = _door_files(config)
    if files is None:
        return None
    shown = read_key_pair(files.cert, files.key, as_server=True, as_client=False)
    link = ClientTls.read(cert=config.tls_cert, key=config.tls_key) or ClientTls()
    # What * stands for does not matter.
    name = shown.names[0].replace("*", "any") if shown.names else ""
    return ClientTls(shown.cert, link.cert, link.key, name)


def _door_files(config: RouterConfig) -> IdentityFiles | None:
    prefix = "tls_door" if config.tls_door_cert else "tls"
    cert = PemFile(f"{prefix}_cert", config.tls_door_cert or config.tls_cert)
    key = PemFile(f"{prefix}_key", config.tls_door_key or config.tls_key)
    if not cert.path:
        return None
    ca = PemFile("tls_door_ca", config.tls_door_ca) if config.tls_door_ca else None
    return IdentityFiles(cert, key, ca, link=False)
