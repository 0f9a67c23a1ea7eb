"""Membership that is written down in a YAML file, which may change.

    instances:
      - {role: prefill, address: 10.0.0.1:7000, name: prefill-0, node: gpu-7, rack: r2}
      - {role: decode, address: 10.0.0.2:7000}

`name` may be left out: role and address then make one. `node`, `clique`, `rack` and `zone` say
where an instance is, as far as that is known (`pdserve.cluster.topology`).
"""

from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

from pdserve.address import is_host_port
from pdserve.cluster.instance import InstanceAddress, Role
from pdserve.cluster.topology import Topology
from pdserve.errors import ConfigError
from pdserve.followed_file import FollowedFiles
from pdserve.yaml_file import read_yaml

_PLACES = ("node", "clique", "rack", "zone")
_FIELDS = ("role", "address", "name", *_PLACES)


class FileDiscovery:
    """The instances of the YAML file at `path` (see `read_instances`), read again when it changes.

    `problem` says why the file as it is now cannot be used; empty: it can. Raises `ConfigError`
    where that is so from the beginning.
    """

    def __init__(self, path: Path) -> None:
        self._file = FollowedFiles("instances", [path], partial(read_instances, path))

    @property
    def problem(self) -> str:
        """Why the membership may be out of date."""
        return self._file.problem

    async def watch(self) -> AsyncGenerator[tuple[InstanceAddress, ...], None]:
        """The membership, and again after each change; it never ends.

        A file that cannot be used leaves the last one in place. An entry that changes in any way is
        another instance.
        """
        membership = None
        async for found in self._file.values():
            if found != membership:
                membership = found
                yield membership


def read_instances(path: Path) -> tuple[InstanceAddress, ...]:
    """The instances that the YAML file lists, in its order.

    Raises `ConfigError` naming the file, the entry and the field that is wrong.
    """
    entries = _entries(path)
    instances = tuple(_instance(path, index, entry) for index, entry in enumerate(entries))
    for field in ("address", "name"):
        _refuse_duplicates(path, field, [getattr(instance, field) for instance in instances])
    return instances


def _entries(path: Path) -> list[Any]:
    document = read_yaml(path, "instances")
    if not isinstance(document, dict) or list(document) != ["instances"]:
        raise _wrong(path, "instances", "the file must hold one key, `instances`")
    entries = document["instances"]
    if not isinstance(entries, list) or not entries:
        raise _wrong(path, "instances", "must be a list of at least one instance")
    return entries


def _instance(path: Path, index: int, entry: Any) -> InstanceAddress:
    where = f"instances[{index}]"
    if not isinstance(entry, dict):
        raise _wrong(path, where, f"is {entry!r}; it must be a mapping with {', '.join(_FIELDS)}")
    unknown = sorted(str(key) for key in entry if key not in _FIELDS)
    if unknown:
        raise _wrong(path, f"{where}.{unknown[0]}", f"is not known; known are {', '.join(_FIELDS)}")
    role = _role(path, f"{where}.role", entry.get("role"))
    address = _address(path, f"{where}.address", entry.get("address"))
    name = _text(path, f"{where}.name", entry.get("name", f"{role}-{address}"))
    places = {
        field: _text(path, f"{where}.{field}", entry[field]) for field in _PLACES if field in entry
    }
    return InstanceAddress(role, address, name, Topology(**places))


def _role(path: Path, where: str, value: Any) -> Role:
    if value in list(Role):
        return Role(value)
    raise _wrong(path, where, f"is {value!r}; it must be one of {', '.join(Role)}")


def _address(path: Path, where: str, value: Any) -> str:
    if isinstance(value, str) and is_host_port(value):
        return value
    raise _wrong(path, where, f"is {value!r}; it must be host:port with a port of 1 to 65535")


def _text(path: Path, where: str, value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise _wrong(path, where, f"is {value!r}; it must be a text that is not empty")


def _refuse_duplicates(path: Path, field: str, values: list[str]) -> None:
    first: dict[str, int] = {}
    for index, value in enumerate(values):
        if value in first:
            also = f"instances[{first[value]}].{field}"
            raise _wrong(path, f"instances[{index}].{field}", f"{value!r} is that of {also} too")
        first[value] = index


def _wrong(path: Path, where: str, why: str) -> ConfigError:
    return ConfigError(f"{path}: {where}: {why}", field=where)
