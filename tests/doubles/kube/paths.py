"""What a URL path of the API names."""

from dataclasses import dataclass

from tests.doubles.kube.errors import not_served
from tests.doubles.kube.resources import Resource, Resources


@dataclass(frozen=True, slots=True)
class Target:
    """A collection (no name), an object, or a subresource of it."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def target_of(resources: Resources, path: str) -> Target:
    """Reads `/api/v1/…` and `/apis/GROUP/VERSION/…`; raises ApiError where nothing is served."""
    match path.strip("/").split("/"):
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            raise not_served(path)
    match rest:
        case ["namespaces", namespace, plural, *more] if resources.at(group, version, plural):
            pass
        case [plural, *more]:
            namespace = ""
        case _:
            raise not_served(path)
    resource = resources.at(group, version, plural)
    if resource is None or len(more) > 2 or (namespace and not resource.namespaced):
        raise not_served(path)
    name, subresource = (*more, "", "")[:2]
    if subresource not in ("", *resource.subresources):
        raise not_served(path)
    return Target(resource, namespace, name, subresource)
