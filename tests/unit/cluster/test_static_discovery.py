from pathlib import Path

import pytest

from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.cluster.static import StaticDiscovery, read_instances
from pdserve.errors import ConfigError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "instances.yaml"
    path.write_text(text)
    return path


async def test_a_file_lists_the_instances_in_its_order(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "instances:\n"
        "- {role: prefill, address: '127.0.0.1:5001', name: prefill-0}\n"
        "- {role: decode, address: '[::1]:5002'}\n",
    )
    memberships = [membership async for membership in StaticDiscovery.from_file(path).watch()]
    assert memberships == [
        (
            InstanceAddress(Role.PREFILL, "127.0.0.1:5001", "prefill-0"),
            InstanceAddress(Role.DECODE, "[::1]:5002", "decode-[::1]:5002"),
        )
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("instances:\n- {role: [", "instances.yaml, line 2, column 11: not valid YAML"),
        ("\x01", "not valid YAML"),
        ("", "instances"),
        ("instances: []", "at least one"),
        ("instances: {a: b}", "list"),
        ("instance: [{role: decode, address: 'a:1'}]", "one key"),
        ("instances: [decode]", "instances[0]"),
        ("instances: [{role: router, address: 'a:1'}]", "instances[0].role"),
        ("instances: [{role: [decode], address: 'a:1'}]", "instances[0].role"),
        ("instances: [{address: 'a:1'}]", "instances[0].role"),
        ("instances: [{role: decode}]", "instances[0].address"),
        ("instances: [{role: decode, address: localhost}]", "instances[0].address"),
        ("instances: [{role: decode, address: ':1'}]", "instances[0].address"),
        ("instances: [{role: decode, address: 'http://a:1'}]", "instances[0].address"),
        ("instances: [{role: decode, address: 'a:0'}]", "instances[0].address"),
        ("instances: [{role: decode, address: 'a:70000'}]", "instances[0].address"),
        ("instances: [{role: decode, address: 'a:1', name: ''}]", "instances[0].name"),
        ("instances: [{role: decode, address: 'a:1', port: 1}]", "instances[0].port"),
        (
            "instances: [{role: decode, address: 'a:1'}, {role: prefill, address: 'a:1'}]",
            "instances[1].address",
        ),
        (
            "instances: [{role: decode, address: 'a:1', name: x},"
            " {role: decode, address: 'a:2', name: x}]",
            "instances[1].name",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, text: str, named: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        read_instances(path)
    assert str(path) in str(raised.value)
    assert named in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        read_instances(tmp_path / "missing.yaml")
