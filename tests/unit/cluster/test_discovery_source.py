"""The option `instances`."""

import sys

import pytest

from pdserve.cluster.source import make_discovery
from pdserve.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "name a YAML file"),
        ("dns:", "'' must be prefill=host:port or decode=host:port"),
        ("dns:host:1", "'host:1' must be"),
        ("dns:router=host:1", "'router=host:1' must be"),
        ("dns:prefill=host", "'prefill=host' must be"),
        ("dns:prefill=host:70000", "must be"),
        ("dns:prefill=host:1,", "'' must be"),
    ],
)
def test_what_cannot_be_understood_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as raised:
        make_discovery(text, "rack")
    assert raised.value.field == "instances"


def test_a_client_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes.aio.client", None)
    with pytest.raises(ConfigError, match=r"pip install 'pdserve\[kubernetes\]'"):
        make_discovery("kube:", "rack")
