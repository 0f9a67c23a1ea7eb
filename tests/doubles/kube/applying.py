"""Server-side apply: a client states the fields that it wants, and owns those from then on."""

import copy
import json
from dataclasses import replace
from typing import Any

from tests.doubles.kube.errors import ApiError
from tests.doubles.kube.listkeys import Names, is_set, key_of, keys_of
from tests.doubles.kube.ownership import (
    Leaves,
    Manager,
    Path,
    item_step,
    leaves_of,
    managers_of,
    with_managers,
)
from tests.doubles.kube.store import Manifest


def applied(live: Manifest, config: Manifest, writer: Manager, *, force: bool) -> Manifest:
    """The live object with the fields of the configuration.

    Fields that the writer applied before, states no longer and shares with nobody go. Raises
    ApiError (409) where others own a field with another value, unless the writer takes it by force.
    """
    wanted, present = leaves_of(config), leaves_of(live)
    managers = managers_of(live)
    others = [manager for manager in managers if not manager.same(writer)]
    if not force:
        _check_conflicts(wanted, present, others, live["apiVersion"])
    mine = next((manager for manager in managers if manager.same(writer)), writer)
    shared = frozenset[Path]().union(*(manager.paths for manager in others))
    merged = _merged(live, config, ())
    # An item of a list comes before its fields.
    for path in sorted(mine.paths - wanted.keys() - shared):
        _drop(merged, path, ())
    taken = {path for path, value in wanted.items() if path in present and present[path] != value}
    time = mine.time if mine.paths == wanted.keys() else ""
    kept = [replace(other, paths=other.paths - taken) for other in others]
    owner = replace(mine, paths=frozenset(wanted), time=time)
    return with_managers(merged, [*kept, owner])


def _check_conflicts(
    wanted: Leaves, present: Leaves, others: list[Manager], api_version: str
) -> None:
    causes = []
    for other in others:
        how = "" if other.operation == "Apply" else f" using {api_version}"
        for path in sorted(other.paths & wanted.keys()):
            if present.get(path) != wanted[path]:
                field = "".join(f".{step[2:]}" for step in path)
                message = f'conflict with "{other.name}"{how}'
                causes.append(
                    {"reason": "FieldManagerConflict", "message": message, "field": field}
                )
    if causes:
        listed = "; ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
        message = f"Apply failed with {len(causes)} conflict(s): {listed}"
        raise ApiError(409, "Conflict", message, causes=causes)


def _merged(live: Any, config: Any, names: Names) -> Any:
    if isinstance(live, dict) and isinstance(config, dict):
        merged = dict(live)
        for field, value in config.items():
            merged[field] = _merged(live.get(field), value, (*names, field))
        return merged
    if isinstance(live, list) and isinstance(config, list):
        if is_set(names):
            return [*live, *(item for item in config if item not in live)]
        if keys := keys_of(names, [*live, *config]):
            by_key = {key_of(item, keys): item for item in live}
            for item in config:
                key = key_of(item, keys)
                by_key[key] = _merged(by_key.get(key), item, names)
            return list(by_key.values())
    return copy.deepcopy(config)


def _drop(value: Any, path: Path, names: Names) -> None:
    """Removes what is at the path, in a structure that shares nothing of it with another."""
    step, *rest = path
    kind, _, named = step.partition(":")
    if kind == "f":
        if not isinstance(value, dict) or named not in value:
            return
        if not rest:
            del value[named]
            return
        value[named] = copy.copy(value[named])
        _drop(value[named], tuple(rest), (*names, named))
        if value[named] in ({}, []):
            del value[named]
    elif kind == "v":
        value[:] = [item for item in value if item != json.loads(named)]
    else:
        keys = keys_of(names, value)
        for index, item in enumerate(value):
            if keys and item_step(item, keys) == step:
                if not rest:
                    del value[index]
                    return
                value[index] = copy.copy(item)
                _drop(value[index], tuple(rest), names)
                return
