"""The documents by which clients find out what the API serves."""

from typing import Any

from tests.doubles.kube.resources import Resource, Resources

COLLECTION_VERBS = (
    "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
)  # fmt: skip
SCALE = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
# What `kubectl get all` lists.
ALL = (
    "CronJob", "DaemonSet", "Deployment", "HorizontalPodAutoscaler", "Job", "Pod", "ReplicaSet",
    "ReplicationController", "Service", "StatefulSet",
)  # fmt: skip
SUBRESOURCE_VERBS = ("get", "patch", "update")


def discovery_document(resources: Resources, path: str, version: str) -> dict[str, Any] | None:
    """What is at `/version`, `/api`, `/apis` and below, down to a version; None elsewhere.

    `version` is that of Kubernetes, such as `1.37.1`.
    """
    groups = resources.versions()
    match path.strip("/").split("/"):
        case ["version"]:
            major, minor, _ = version.split(".")
            return {"major": major, "minor": minor, "gitVersion": f"v{version}",
                    "platform": "linux/amd64"}  # fmt: skip
        case ["api"]:
            return {"kind": "APIVersions", "versions": groups[""]}
        case ["apis"]:
            listed = [_group(name, served) for name, served in groups.items() if name]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["apis", group] if group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, groups[group])}
        case ["api", served] if served in groups[""]:
            return _resource_list(resources, "", served)
        case ["apis", group, served] if served in groups.get(group, ()):
            return _resource_list(resources, group, served)
    return None


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    served = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": served, "preferredVersion": served[0]}


def _resource_list(resources: Resources, group: str, version: str) -> dict[str, Any]:
    listed: list[dict[str, Any]] = []
    for resource in resources:
        if (resource.group, resource.version) == (group, version):
            listed.append(_resource(resource, "", COLLECTION_VERBS))
            listed += [
                _resource(resource, f"/{subresource}", SUBRESOURCE_VERBS)
                for subresource in resource.subresources
            ]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": listed,
    }


def _resource(resource: Resource, suffix: str, verbs: tuple[str, ...]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": f"{resource.plural}{suffix}",
        "singularName": "" if suffix else resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(verbs),
    }
    if suffix == "/scale":
        entry |= SCALE
    elif not suffix:
        entry["shortNames"] = list(resource.short_names)
        entry["categories"] = ["all"] if resource.kind in ALL else []
    return entry
