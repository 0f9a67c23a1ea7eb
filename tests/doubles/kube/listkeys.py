"""Which lists of built-in kinds are maps by a key, or sets: merged by item, not replaced."""

from typing import Any

Names = tuple[str, ...]

# By the end of the path of field names that leads to the list.
KEYS: dict[Names, Names] = {
    ("conditions",): ("type",),
    ("containers",): ("name",),
    ("containers", "ports"): ("containerPort", "protocol"),
    ("env",): ("name",),
    ("ephemeralContainers",): ("name",),
    ("hostAliases",): ("ip",),
    ("imagePullSecrets",): ("name",),
    ("initContainers",): ("name",),
    ("initContainers", "ports"): ("containerPort", "protocol"),
    ("ownerReferences",): ("uid",),
    ("secrets",): ("name",),
    ("spec", "ports"): ("port", "protocol"),
    ("topologySpreadConstraints",): ("topologyKey", "whenUnsatisfiable"),
    ("volumeDevices",): ("devicePath",),
    ("volumeMounts",): ("mountPath",),
    ("volumes",): ("name",),
}
SETS = ("finalizers",)
DEFAULTS = {"protocol": "TCP", "whenUnsatisfiable": "DoNotSchedule"}


def keys_of(names: Names, items: list[Any]) -> Names:
    """The fields by which the items at that path are told apart; none where they are not."""
    keys = KEYS.get(names[-2:]) or KEYS.get(names[-1:]) or ()
    return keys if all(isinstance(item, dict) for item in items) else ()


def key_of(item: dict[str, Any], keys: Names) -> tuple[Any, ...]:
    """What tells the item apart."""
    return tuple(item.get(key, DEFAULTS.get(key)) for key in keys)


def is_set(names: Names) -> bool:
    """Whether the list at that path is a set of plain values."""
    return names[-1] in SETS
