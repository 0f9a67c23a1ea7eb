"""Writes the options of pdserve.config into the chart's values.schema.json.

The rest of that file is written by hand. With --check nothing is written; the exit status tells
whether the file is up to date.
"""

import argparse
import dataclasses
import json
import sys
import typing
from pathlib import Path
from typing import Any

from pdserve.config import InstanceConfig, RouterConfig
from pdserve.errors import ConfigError

SCHEMA = Path(__file__).parents[1] / "charts" / "pdserve" / "values.schema.json"
# Options that have a value of their own in the chart, or follow from where a pod runs.
SET_BY_CHART = frozenset(
    {
        *("model", "name", "host", "advertise_host", "port", "metrics_port", "device"),
        *("http", "http_port", "api_keys", "instances", "slo_ttft_ms", "slo_tpot_ms"),
        *("tls_cert", "tls_key", "tls_ca", "tls_server_name"),
        *("tls_door_cert", "tls_door_key", "tls_door_ca"),
    }
)
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
# Beyond every limit of an option: the error that it gives tells the limits.
_NONSENSE = -1


def options_schema(config: type) -> dict[str, Any]:
    """The JSON schema of a map of the options of `config`, but for those that the chart sets."""
    types = typing.get_type_hints(config)
    return {
        "description": f"Options of pdserve.config.{config.__name__} by their names (generated)",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            field.name: _property(config, field, types[field.name])
            for field in dataclasses.fields(config)
            if field.name not in SET_BY_CHART
        },
    }


def updated(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with the options as they are now."""
    options = {
        "instanceOptions": options_schema(InstanceConfig),
        "routerOptions": options_schema(RouterConfig),
    }
    return {**schema, "definitions": {**schema["definitions"], **options}}


def main() -> int:
    """Writes or checks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    check = parser.parse_args().check
    text = SCHEMA.read_text("utf-8")
    fresh = json.dumps(updated(json.loads(text)), indent=2) + "\n"
    if not check:
        SCHEMA.write_text(fresh, "utf-8")
    elif text != fresh:
        print("values.schema.json is stale (run `make chart`)", file=sys.stderr)
        return 1
    return 0


def _property(config: type, field: "dataclasses.Field[Any]", kind: type) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "description": field.metadata["description"],
        "type": _TYPES[kind],
    }
    if field.metadata["choices"]:
        schema["enum"] = list(field.metadata["choices"])
    if kind in (int, float):
        low, high = _limits(config, field.name)
        schema["minimum"] = low
        if high != float("inf"):
            schema["maximum"] = high
    return schema


def _limits(config: type, name: str) -> tuple[float, float]:
    """The least and the most that the option `name` may be: `config` itself is asked."""
    try:
        config(**{name: _NONSENSE})
    except ConfigError as error:
        low, high = (float(each) for each in error.limit.strip("[]").split(","))
        return _number(low), _number(high)
    raise ValueError(f"{config.__name__}.{name} has no limits")


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


if __name__ == "__main__":
    raise SystemExit(main())
