"""Label and field selectors, as queries write them."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.doubles.kube.errors import bad_request
from tests.doubles.kube.resources import Resource

Manifest = dict[str, Any]
Predicate = Callable[[Manifest], bool]

# At commas that do not stand in a list of values.
COMMAS = re.compile(r",(?![^()]*\))")
NAME = r"[A-Za-z0-9](?:[\w./-]*[A-Za-z0-9])?"
VALUE = r"(?:[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)?"
EXISTS = re.compile(rf"(!?)\s*({NAME})")
EQUALS = re.compile(rf"({NAME})\s*(==|!=|=)\s*({VALUE})")
ONE_OF = re.compile(rf"({NAME})\s+(in|notin)\s*\(([^()]*)\)")

FIELDS = {
    "Pod": ("spec.nodeName", "spec.serviceAccountName", "status.phase", "status.podIP"),
    "Node": ("spec.unschedulable",),
    "Namespace": ("status.phase",),
    "Secret": ("type",),
    "Event": ("involvedObject.kind", "involvedObject.name", "involvedObject.namespace",
              "involvedObject.uid", "reason", "type"),
}  # fmt: skip
ABSENT = {"spec.unschedulable": "false"}
FIELDS_OF_ALL = ("metadata.name", "metadata.namespace")


def label_predicate(selector: str) -> Predicate:
    """Whether an object's labels meet every requirement; raises ApiError where it cannot be read.

    As in the API, `!=` and `notin` also hold for objects without the label.
    """
    terms = [_label_term(part.strip()) for part in COMMAS.split(selector) if part.strip()]

    def holds(manifest: Manifest) -> bool:
        labels = manifest["metadata"].get("labels") or {}
        return all(term(labels) for term in terms)

    return holds


def _label_term(text: str) -> Callable[[Mapping[str, str]], bool]:
    if found := EXISTS.fullmatch(text):
        negated, label = found.groups()
        return lambda labels: (label in labels) is not bool(negated)
    if found := EQUALS.fullmatch(text):
        label, operator, value = found.groups()
        return lambda labels: (labels.get(label) == value) is (operator != "!=")
    if found := ONE_OF.fullmatch(text):
        label, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        return lambda labels: (labels.get(label) in values) is (operator == "in")
    raise bad_request(f"unable to parse requirement: {text!r}")


def field_predicate(resource: Resource, selector: str) -> Predicate:
    """Whether an object's fields have the given values; raises ApiError for other fields."""
    terms = [_field_term(resource, part) for part in selector.split(",") if part]
    return lambda manifest: all(term(manifest) for term in terms)


def _field_term(resource: Resource, text: str) -> Predicate:
    found = re.fullmatch(r"([\w.]+)(==|!=|=)(.*)", text)
    if found is None:
        raise bad_request(f"invalid field selector: {text!r}")
    path, operator, value = found.groups()
    if path not in (*FIELDS_OF_ALL, *FIELDS.get(resource.kind, ())):
        raise bad_request(f'field label not supported: "{path}"')

    def holds(manifest: Manifest) -> bool:
        reached: Any = manifest
        for step in path.split("."):
            reached = (reached or {}).get(step)
        present = json.dumps(reached) if isinstance(reached, bool) else reached
        return ((present or ABSENT.get(path, "")) == value) is (operator != "!=")

    return holds
