"""Turns a typed configuration dataclass into flags, environment variables and a YAML file.

A field `kv_memory_bytes` is the flag `--kv-memory-bytes`, the variable `PDSERVE_KV_MEMORY_BYTES`
and the YAML key `kv_memory_bytes`. A flag wins over the environment, which wins over the file,
which wins over the default.
"""

import argparse
import dataclasses
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pdserve.errors import ConfigError
from pdserve.yaml_file import read_yaml

PREFIX = "PDSERVE_"

Config = TypeVar("Config")

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def option(default: Any, description: str, *, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field with a description and, optionally, the values that it may take."""
    return dataclasses.field(
        default=default, metadata={"description": description, "choices": choices}
    )


def add_options(
    parser: argparse.ArgumentParser, config: type, *, without: Collection[str] = ()
) -> None:
    """Adds `--config` and one flag a field of the dataclass `config`, with help and default.

    Not for the fields `without`: those that the command decides itself.
    """
    group = parser.add_argument_group(
        "options", "each is also an environment variable, PDSERVE_ and the name in capitals"
    )
    group.add_argument("--config", metavar="FILE", help="YAML file with any of these options")
    for field in dataclasses.fields(config):
        if field.name in without:
            continue
        kind = _type_name(config, field.name)
        default = "" if field.default in ("", None) else f" (default: {field.default})"
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            metavar=kind.upper(),
            # A switch may stand alone: --colocated is --colocated=true.
            nargs="?" if kind == "bool" else None,
            const="true" if kind == "bool" else None,
            help=f"{field.metadata['description']}{default}".replace("%", "%%"),
        )


def load(config: type[Config], flags: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    """The configuration from flags, environment and file; `ConfigError` names what is wrong."""
    values: dict[str, Any] = {}
    path = getattr(flags, "config", None) or environ.get(f"{PREFIX}CONFIG")
    if path:
        values.update(_read_file(config, Path(path)))
    for field in dataclasses.fields(typing.cast("Any", config)):
        variable = f"{PREFIX}{field.name.upper()}"
        if variable in environ:
            values[field.name] = _parse(config, field, environ[variable], variable)
        flag = getattr(flags, field.name, None)
        if flag is not None:
            name = f"--{field.name.replace('_', '-')}"
            values[field.name] = _parse(config, field, flag, name)
    return config(**values)


def to_flags(config: Any) -> list[str]:
    """The command line that yields `config`: every field that differs from its default."""
    flags = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            flags.append(f"--{field.name.replace('_', '-')}={text}")
    return flags


def _read_file(config: type, path: Path) -> dict[str, Any]:
    document = read_yaml(path, "config")
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping of option names to values", field="config")
    fields = {field.name: field for field in dataclasses.fields(config)}
    unknown = sorted(str(key) for key in document if key not in fields)
    if unknown:
        raise ConfigError(f"{path}: unknown option {unknown[0]!r}", field=unknown[0])
    return {
        name: _parse(config, fields[name], value, f"{path}: {name}")
        for name, value in document.items()
    }


def _type_name(config: type, field: str) -> str:
    return str(typing.get_type_hints(config)[field].__name__)


def _parse(config: type, field: "dataclasses.Field[Any]", value: Any, where: str) -> Any:
    kind = typing.get_type_hints(config)[field.name]
    choices = field.metadata["choices"]
    try:
        parsed = _boolean(value) if kind is bool else _convert(kind, value)
    except ValueError as error:
        wanted = _KINDS[kind]
        raise ConfigError(f"{where} is {value!r}; it must be {wanted}", field=field.name) from error
    if choices and parsed not in choices:
        raise ConfigError(
            f"{where} is {value!r}; it must be one of {', '.join(choices)}",
            field=field.name,
            limit="|".join(choices),
        )
    return parsed


def _convert(kind: type, value: Any) -> Any:
    """`value` as a `kind`, from text or from YAML, where a conversion would lose something."""
    whole = type(value) is int and kind is float
    if not isinstance(value, str) and type(value) is not kind and not whole:
        raise ValueError(value)
    return kind(value)


def _boolean(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    word = str(value).lower()
    if word not in words:
        raise ValueError(word)
    return words[word]
