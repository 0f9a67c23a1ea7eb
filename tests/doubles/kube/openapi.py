"""As much of the OpenAPI v3 documents as clients need: that the server checks fields itself.

helm and kubectl look for the parameter `fieldValidation` of the patch operation of each kind; where
they find it, they leave the check of manifests to the server.
"""

from typing import Any

from tests.doubles.kube.resources import Resource, Resources

FIELD_VALIDATION = {
    "name": "fieldValidation",
    "in": "query",
    "schema": {"type": "string", "uniqueItems": True},
}


def openapi_document(resources: Resources, path: str) -> dict[str, Any] | None:
    """What is at `/openapi/v3` and below, down to a version of a group; None elsewhere."""
    served: dict[str, list[Resource]] = {}
    for resource in resources:
        served.setdefault(_root(resource), []).append(resource)
    match path.strip("/").split("/"):
        case ["openapi", "v3"]:
            listed = {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in served}
            return {"paths": listed}
        case ["openapi", "v3", *rest] if (root := "/".join(rest)) in served:
            return {
                "openapi": "3.0.0",
                "info": {"title": "Kubernetes", "version": "test"},
                "paths": {_path(resource): _operations(resource) for resource in served[root]},
                "components": {"schemas": {}},
            }
    return None


def _root(resource: Resource) -> str:
    return f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"


def _path(resource: Resource) -> str:
    namespace = "namespaces/{namespace}/" if resource.namespaced else ""
    return f"/{_root(resource)}/{namespace}{resource.plural}/{{name}}"


def _operations(resource: Resource) -> dict[str, Any]:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    patch = {
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": kind,
        "parameters": [FIELD_VALIDATION],
        "responses": {"200": {"description": "OK"}},
    }
    return {"patch": patch}
