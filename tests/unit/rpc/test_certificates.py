"""Which TLS options go together, and what is wrong with their files: said at start, by name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pdserve.config import InstanceConfig, RouterConfig
from pdserve.errors import ConfigError
from pdserve.rpc.tls import ClientTls
from pdserve.rpc.tls_identity import door_client, door_identity, link_identity
from tests.doubles.issued_certificates import Authority, Issued, put, with_passphrase


@pytest.mark.parametrize(
    ("config", "options", "field"),
    [
        (InstanceConfig, {"tls_cert": "c"}, "tls_key"),
        (InstanceConfig, {"tls_key": "k"}, "tls_cert"),
        (InstanceConfig, {"tls_ca": "a"}, "tls_cert"),
        (InstanceConfig, {"tls_cert": "c", "tls_key": "k"}, "tls_ca"),
        (InstanceConfig, {"tls_server_name": "pdserve"}, "tls_cert"),
        (RouterConfig, {"tls_cert": "c", "tls_key": "k"}, "tls_ca"),
        (RouterConfig, {"tls_door_cert": "c"}, "tls_door_key"),
        (RouterConfig, {"tls_door_key": "k"}, "tls_door_cert"),
        (RouterConfig, {"tls_door_ca": "a"}, "tls_door_cert"),
    ],
)
def test_options_that_do_not_go_together(config: type, options: dict[str, str], field: str) -> None:
    with pytest.raises(ConfigError, match=field) as raised:
        config(**options)
    assert raised.value.field == field


def test_nothing_is_plain() -> None:
    assert link_identity(InstanceConfig()) is None
    assert link_identity(RouterConfig()) is None
    assert door_identity(RouterConfig()) is None
    assert door_client(RouterConfig()) is None
    assert ClientTls.read() is None


def test_links_and_door_may_be_apart(tmp_path: Path) -> None:
    issued = Authority().issue(tmp_path)
    door = RouterConfig(tls_door_cert=str(issued.cert), tls_door_key=str(issued.key))
    assert link_identity(door) is None
    assert door_identity(door) is not None
    both = issued.router()
    assert link_identity(both) is not None
    assert door_identity(both) is not None


Spoil = Callable[[Issued], None]


@pytest.mark.parametrize(
    ("spoil", "field", "words"),
    [
        (lambda it: it.cert.unlink(), "tls_cert", "No such file"),
        (lambda it: it.key.unlink(), "tls_key", "No such file"),
        (lambda it: it.ca.unlink(), "tls_ca", "No such file"),
        (lambda it: put(it.cert, b"\xff\x00"), "tls_cert", "no certificate in PEM form"),
        (lambda it: put(it.cert, it.key.read_bytes()), "tls_cert", "no certificate in PEM form"),
        (lambda it: put(it.ca, b""), "tls_ca", "no certificate in PEM form"),
        (lambda it: put(it.key, b"nonsense"), "tls_key", "no private key"),
        (lambda it: put(it.key, with_passphrase(it.key)), "tls_key", "passphrase"),
        (lambda it: put(it.key, another_key(it)), "tls_key", "is not the key of tls_cert"),
        (lambda it: put(it.cert, it.cert.read_bytes()[:-80]), "tls_cert", "no certificate"),
        (
            lambda it: Authority().issue(it.cert.parent, expired=True),
            "tls_cert",
            "peers would refuse it: certificate has expired",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, spoil: Spoil, field: str, words: str) -> None:
    issued = Authority().issue(tmp_path)
    assert link_identity(issued.instance()) is not None
    spoil(issued)
    with pytest.raises(ConfigError, match=words) as raised:
        link_identity(issued.instance())
    assert raised.value.field == field
    assert str(tmp_path) in str(raised.value)
    with pytest.raises(ConfigError, match=words):
        issued.client()


def another_key(issued: Issued) -> bytes:
    return Authority().issue(issued.cert.parent / "other").key.read_bytes()


def test_a_certificate_of_the_door_is_named_as_such(tmp_path: Path) -> None:
    issued = Authority().issue(tmp_path, expired=True)
    config = RouterConfig(tls_door_cert=str(issued.cert), tls_door_key=str(issued.key))
    with pytest.raises(ConfigError, match=r"tls_door_cert: .* has expired"):
        door_identity(config)


def test_a_key_is_not_shown_by_accident(tmp_path: Path) -> None:
    client = Authority().issue(tmp_path).client()
    assert client.key is not None
    assert "PRIVATE" not in repr(client)
