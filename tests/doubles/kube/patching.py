"""The three kinds of patch that change an object as it is now; none changes its arguments."""

import copy
from typing import Any

from tests.doubles.kube.errors import ApiError, bad_request
from tests.doubles.kube.listkeys import Names, is_set, key_of, keys_of

# Directives of a strategic merge patch.
DIRECTIVE = "$patch"
ORDER = "$setElementOrder/"
DELETED = "$deleteFromPrimitiveList/"
RETAINED = "$retainKeys"


def merge_patch(present: Any, patch: Any) -> Any:
    """RFC 7396: fields are merged, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(present) if isinstance(present, dict) else {}
    for field, value in patch.items():
        if value is None:
            merged.pop(field, None)
        else:
            merged[field] = merge_patch(merged.get(field), value)
    return merged


def strategic_merge_patch(present: Any, patch: Any, names: Names = ()) -> Any:
    """As a merge patch, but lists that are maps or sets are merged item by item.

    `names` are the fields that lead here.
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get(DIRECTIVE) == "replace":
        return {field: value for field, value in patch.items() if field != DIRECTIVE}
    merged = dict(present) if isinstance(present, dict) else {}
    if RETAINED in patch:
        merged = {field: value for field, value in merged.items() if field in patch[RETAINED]}
    for field, value in patch.items():
        if field.startswith(DELETED):
            named = field.removeprefix(DELETED)
            merged[named] = [item for item in merged.get(named, []) if item not in value]
        elif field.startswith("$"):
            continue
        elif value is None:
            merged.pop(field, None)
        elif isinstance(value, list):
            merged[field] = _merge_list(merged.get(field) or [], value, (*names, field))
        else:
            merged[field] = strategic_merge_patch(merged.get(field), value, (*names, field))
    for field, order in patch.items():
        if field.startswith(ORDER):
            named = field.removeprefix(ORDER)
            merged[named] = _ordered(merged.get(named, []), order, (*names, named))
    return merged


def _merge_list(present: list[Any], patch: list[Any], names: Names) -> list[Any]:
    if is_set(names):
        return [*present, *(item for item in patch if item not in present)]
    keys = keys_of(names, [*present, *patch])
    if not keys or {DIRECTIVE: "replace"} in patch:
        return [item for item in copy.deepcopy(patch) if item != {DIRECTIVE: "replace"}]
    merged = {key_of(item, keys): item for item in present}
    for item in patch:
        key = key_of(item, keys)
        if item.get(DIRECTIVE) == "delete":
            merged.pop(key, None)
        else:
            merged[key] = strategic_merge_patch(merged.get(key), item, names)
    return list(merged.values())


def _ordered(items: list[Any], order: list[Any], names: Names) -> list[Any]:
    keys = keys_of(names, [*items, *order])
    wanted = [key_of(item, keys) for item in order] if keys else list(order)

    def place(item: Any) -> int:
        key = key_of(item, keys) if keys else item
        return wanted.index(key) if key in wanted else len(wanted)

    return sorted(items, key=place)


def json_patch(present: Any, operations: Any) -> Any:
    """RFC 6902: add, remove, replace, move, copy and test, by JSON pointers.

    Raises ApiError where an operation does not apply.
    """
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    document = copy.deepcopy(present)
    for operation in operations:
        try:
            _operate(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            message = f"the JSON patch does not apply: {operation}: {error!r}"
            raise ApiError(422, "Invalid", message) from error
    return document


def _operate(document: Any, operation: dict[str, Any]) -> None:
    path = _steps(operation["path"])
    match operation["op"]:
        case "add":
            _add(document, path, operation["value"])
        case "remove":
            _take(document, path)
        case "replace":
            _take(document, path)
            _add(document, path, operation["value"])
        case "move":
            _add(document, path, _take(document, _steps(operation["from"])))
        case "copy":
            _add(document, path, copy.deepcopy(_reach(document, _steps(operation["from"]))))
        case "test":
            if _reach(document, path) != operation["value"]:
                raise ValueError("the value is another")
        case other:
            raise ValueError(f"unknown operation {other!r}")


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _reach(document: Any, path: list[str]) -> Any:
    for step in path:
        document = document[int(step) if isinstance(document, list) else step]
    return document


def _add(document: Any, path: list[str], value: Any) -> None:
    parent, last = _reach(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else int(last), value)
    else:
        parent[last] = value


def _take(document: Any, path: list[str]) -> Any:
    parent, last = _reach(document, path[:-1]), path[-1]
    return parent.pop(int(last) if isinstance(parent, list) else last)
