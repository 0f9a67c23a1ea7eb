"""Whether an object has the fields that its kind has, by the published schemas of Kubernetes."""

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
from referencing import Registry
from referencing import Resource as Document

from tests.doubles.kube.errors import bad_request, invalid
from tests.doubles.kube.resources import Resource
from tests.doubles.kube.store import Manifest

SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def check_fields(resource: Resource, manifest: Manifest, version: str, *, strict: bool) -> None:
    """Raises ApiError for a field of a wrong type or one missing; when strict, for unknown ones.

    `version` is that of Kubernetes. Kinds of extensions are taken as they are.
    """
    minor = ".".join(version.split(".")[:2])
    validator = _validator(resource, minor, strict)
    if validator is None:
        return
    error = jsonschema.exceptions.best_match(validator.iter_errors(manifest))
    if error is None:
        return
    if error.validator == "additionalProperties":
        unknown = sorted(error.instance.keys() - error.schema["properties"].keys())
        field = f"{error.json_path}.{unknown[0]}".removeprefix("$.")
        raise bad_request(f'strict decoding error: unknown field "{field}"')
    name = manifest["metadata"].get("name", "")
    raise invalid(resource.kind, name, error.json_path.removeprefix("$."), error.message)


@functools.cache
def _validator(resource: Resource, minor: str, strict: bool) -> Any:
    folder = SCHEMAS / f"v{minor}.0-local{'-strict' if strict else ''}"
    group = resource.group.partition(".")[0]
    stem = "-".join(filter(None, (resource.kind.lower(), group, resource.version)))
    path = folder / f"{stem}.json"
    if not path.exists():
        return None
    return jsonschema.Draft202012Validator(
        json.loads(path.read_text()), registry=_definitions(folder)
    )


@functools.cache
def _definitions(folder: Path) -> Registry[Any]:
    contents = json.loads((folder / "_definitions.json").read_text())
    return Document.from_contents(contents) @ Registry()
