"""Whether the roles that are stored allow a service account what it asks for."""

from collections.abc import Iterator
from typing import Any

from tests.doubles.kube.access import Access
from tests.doubles.kube.store import Manifest, Store

ACCOUNT = "system:serviceaccount"


def account_name(namespace: str, name: str) -> str:
    """The user name of a service account, which is its token here too."""
    return f"{ACCOUNT}:{namespace}:{name}"


def allowed(store: Store, access: Access) -> bool:
    """Whether the user may do that; users that are no service accounts may do everything."""
    if not access.user.startswith(f"{ACCOUNT}:"):
        return True
    return any(_covers(rule, access) for rule in _rules(store, access))


def _rules(store: Store, access: Access) -> Iterator[dict[str, Any]]:
    """The rules of every role that the user has where it asks."""
    bindings = store.list("ClusterRoleBinding")
    if access.namespace:
        bindings += store.list("RoleBinding", access.namespace)
    for binding in bindings:
        if any(_is(subject, access.user) for subject in binding.get("subjects") or ()):
            kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
            namespace = binding["metadata"].get("namespace", "")
            if store.has(kind, name, namespace):
                role: Manifest = store.get(kind, name, namespace)
                yield from role.get("rules") or ()


def _is(subject: dict[str, str], user: str) -> bool:
    _, _, namespace, _ = user.split(":")
    match subject["kind"]:
        case "ServiceAccount":
            return account_name(subject["namespace"], subject["name"]) == user
        case "Group":
            groups = (f"{ACCOUNT}s", f"{ACCOUNT}s:{namespace}", "system:authenticated")
            return subject["name"] in groups
    return subject["name"] == user


def _covers(rule: dict[str, Any], access: Access) -> bool:
    wanted = (
        ("verbs", access.verb), ("apiGroups", access.group), ("resources", access.resource),
    )  # fmt: skip
    for field, value in wanted:
        if not {value, "*"} & set(rule.get(field) or ()):
            return False
    names = rule.get("resourceNames")
    return not names or access.name in names
