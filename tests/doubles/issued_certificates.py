"""Certificates for tests, in files as a process finds them."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from pdserve.config import InstanceConfig, RouterConfig
from pdserve.rpc.tls import ClientTls

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Issued:
    """The files of one process."""

    ca: Path
    cert: Path
    key: Path

    def options(self) -> dict[str, str]:
        """The options that name them."""
        return {"tls_cert": str(self.cert), "tls_key": str(self.key), "tls_ca": str(self.ca)}

    def instance(self, **others) -> InstanceConfig:
        return InstanceConfig(**self.options() | others)

    def router(self, **others) -> RouterConfig:
        return RouterConfig(**self.options() | others)

    def client(self, *, shown: bool = True, server_name: str = "") -> ClientTls:
        """A client that has them; without `shown` it shows no certificate."""
        own = (str(self.cert), str(self.key)) if shown else ("", "")
        client = ClientTls.read(str(self.ca), *own, server_name)
        assert client is not None
        return client


class Authority:
    """Issues certificates."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    @property
    def pem(self) -> bytes:
        return self._ca.cert_pem.bytes()

    def issue(self, folder: Path, *hosts: str, expired: bool = False) -> Issued:
        """New files in `folder`, each in the place of the one before it."""
        ends = datetime.now(UTC) - timedelta(days=1) if expired else None
        begins = datetime.now(UTC) - timedelta(days=2)
        leaf = self._ca.issue_cert(*(hosts or (LOOPBACK,)), not_before=begins, not_after=ends)
        chain = b"".join(each.bytes() for each in leaf.cert_chain_pems)
        folder.mkdir(exist_ok=True)
        contents = {"ca": self.pem, "cert": chain, "key": leaf.private_key_pem.bytes()}
        return Issued(**{name: put(folder / f"{name}.pem", it) for name, it in contents.items()})


def put(path: Path, content: bytes) -> Path:
    """Puts a file in the place of the one before it, as rotation does."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)
    return path


def with_passphrase(key: Path) -> bytes:
    """The key of a file, encrypted."""
    return serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
