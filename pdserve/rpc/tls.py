"""What TLS a client speaks, as certificates that it has read."""

from dataclasses import dataclass
from pathlib import Path

import grpc

from pdserve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How a client calls servers over TLS; certificates and keys are PEM.

    `ca` are the authorities that servers' certificates must come from; None: those that gRPC
    brings. `cert` and `key`, with mutual TLS, are what the client shows of itself. `server_name` is
    the name that a server's certificate must bear; empty: the host of its address.
    """

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None
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
        return cls(
            _read("tls_ca", ca) if ca else None,
            _read("tls_cert", cert) if cert else None,
            _read("tls_key", key) if key else None,
            server_name,
        )

    def credentials(self) -> grpc.ChannelCredentials:
        """For a gRPC channel."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)

    def options(self) -> tuple[tuple[str, str], ...]:
        """Further options of a gRPC channel."""
        name = self.server_name
        return (("grpc.ssl_target_name_override", name),) if name else ()


def _read(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{option}: {path}: {error.strerror}", field=option) from error
