from pathlib import Path

import pytest

from pdserve.cluster.file import read_instances
from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.cluster.source import make_discovery
from pdserve.cluster.topology import Topology
from pdserve.errors import ConfigError
from tests.unit.cluster.pods import members_of


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "instances.yaml"
    path.write_text(text)
    return path


def test_a_file_lists_the_instances_in_its_order(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "instances:\n"
        "- {role: prefill, address: '127.0.0.1:5001', name: prefill-0, node: n1, rack: r1}\n"
        "- {role: decode, address: '[::1]:5002'}\n",
    )
    assert read_instances(path) == (
        InstanceAddress(Role.PREFILL, "127.0.0.1:5001", "prefill-0", Topology("n1", rack="r1")),
        InstanceAddress(Role.DECODE, "[::1]:5002", "decode-[::1]:5002"),
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdserve.followed_file._POLL_S", 0.02)


@pytest.mark.usefixtures("quick")
async def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path, "instances: [{role: decode, address: 'a:1', name: one}]")
    async with members_of(make_discovery(str(path), "rack")) as members:
        await members.until(lambda: members.names == ["one"])
        written(tmp_path, "instances: [{role: decode, address: 'a:1', name: another}]")
        await members.until(lambda: members.names == ["another"])


@pytest.mark.usefixtures("quick")
async def test_a_file_that_is_broken_leaves_the_membership(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "instances: [{role: decode, address: 'a:1', name: one}]")
    async with members_of(make_discovery(str(path), "rack")) as members:
        await members.until(lambda: members.names == ["one"])
        for broken in ("instances: [", "instances: []"):
            written(tmp_path, broken)
            await members.until(lambda: members.discovery.problem != "")
            written(tmp_path, "instances: [{role: decode, address: 'a:1', name: one}]")
            await members.until(lambda: members.discovery.problem == "")
        path.unlink()
        await members.until(lambda: "No such file" in members.discovery.problem)
        assert [each[0].name for each in members.seen] == ["one"]
    complaints = [each for each in caplog.records if "stay as they were" in each.message]
    assert len(complaints) == 3, "each is complained of once"


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
