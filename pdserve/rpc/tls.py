"""What TLS a client speaks, as certificates that it has read."""

from dataclasses import dataclass, field

import grpc

from pdserve.errors import ConfigError
from pdserve.rpc.certificates import PemFile, read_authorities, read_key_pair


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How a client calls servers over TLS; certificates and keys are PEM.

    `ca` are the authorities that servers' certificates must come from; None: those that gRPC
    brings. `cert` and `key`, with mutual TLS, are what the client shows of itself. `server_name` is
    the name that a server's certificate must bear; empty: the host of its address.
    """

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    @classmethod
    def read(
        cls, ca: str = "", cert: str = "", key: str = "", server_name: str = ""
    ) -> "ClientTls | None":
        """From files; None, which is no TLS, where no file is named.

        Raises `ConfigError` for what cannot be used, with the fields `tls_ca`, `tls_cert` and
        `tls_key`.
        """
        if bool(cert) != bool(key):
            missing = "tls_key" if cert else "tls_cert"
            raise ConfigError(
                f"{missing} is empty: tls_cert and tls_key go together", field=missing
            )
        if not ca and not cert:
            return None
        roots = read_authorities(PemFile("tls_ca", ca)) if ca else None
        if not cert:
            return cls(roots, server_name=server_name)
        files = PemFile("tls_cert", cert), PemFile("tls_key", key)
        own = read_key_pair(*files, as_server=False, as_client=True)
        return cls(roots, own.cert, own.key, server_name)

    def credentials(self) -> grpc.ChannelCredentials:
        """For a gRPC channel."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)

    def options(self) -> tuple[tuple[str, str], ...]:
        """Further options of a gRPC channel."""
        name = self.server_name
        return (("grpc.ssl_target_name_override", name),) if name else ()
