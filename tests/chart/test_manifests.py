"""Kubernetes would take every object of every example, strictly."""

import functools
from typing import Any

import jsonschema
import pytest
from custom_resources import SCHEMAS
from everything import SETS
from kubernetes_validate import utils
from referencing import Registry, Resource
from rendering import CHART, EXAMPLES, VERSIONS, Manifest, example, helm, render

CASES = {**{name: example(name) for name in EXAMPLES}, **SETS}
RELEASES = ("1.28", utils.major_minor(utils.latest_version()))
POD = {"apiVersion": "v1", "kind": "Pod"}


@functools.cache
def kubernetes_schema(release: str, kind: str, api: str) -> jsonschema.Draft202012Validator:
    """The strict schema of a kind; strict means that unknown fields are errors."""
    group, _, api_version = api.rpartition("/")
    file = f"{kind}-{group.partition('.')[0]}-{api_version}.json".lower().replace("--", "-")
    full = next(each for each in utils.all_versions() if utils.major_minor(each) == release)
    folder = f"kubernetes-json-schema/v{full}-local-strict"
    schema = utils.schema_contents(f"{folder}/{file}", full)
    resources = (Resource.from_contents(schema), definitions(folder, full))
    registry = functools.reduce(lambda registry, each: each @ registry, resources, Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def definitions(folder: str, full: str) -> "Resource[Any]":
    return Resource.from_contents(utils.schema_contents(f"{folder}/_definitions.json", full))


def known_to_kubernetes(manifest: Manifest) -> list[Manifest]:
    """The object, or what an object of a foreign kind holds of kinds that Kubernetes knows."""
    if manifest["kind"] not in SCHEMAS:
        return [manifest]
    jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
    templates = manifest["spec"].get("leaderWorkerTemplate", {})
    pods = (templates[name] for name in ("leaderTemplate", "workerTemplate") if name in templates)
    return [{**POD, **pod} for pod in pods]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_valid_in_kubernetes(case: str, release: str) -> None:
    manifests = render(CASES[case])
    assert len(manifests) >= 10
    for manifest in manifests:
        for part in known_to_kubernetes(manifest):
            schema = kubernetes_schema(release, part["kind"], part["apiVersion"])
            errors = [f"{error.json_path}: {error.message}" for error in schema.iter_errors(part)]
            assert not errors, f"{part['kind']} {part['metadata'].get('name')}"


def test_the_strict_schema_is_strict() -> None:
    pod = {**POD, "metadata": {"name": "a"}, "spec": {"containers": [], "colour": "blue"}}
    assert list(kubernetes_schema(RELEASES[0], "Pod", "v1").iter_errors(pod))


@pytest.mark.parametrize("case", CASES)
def test_both_helms_make_the_same_of_it(case: str) -> None:
    def by_name(manifests: list[Manifest]) -> list[Manifest]:
        return sorted(manifests, key=lambda each: (each["kind"], each["metadata"]["name"]))

    three, four = (by_name(render(CASES[case], version=version)) for version in VERSIONS)
    assert three == four


@pytest.mark.parametrize("version", VERSIONS)
def test_helm_has_nothing_to_say_against_it(version: int) -> None:
    flags = [f"--values={path}" for path in EXAMPLES.values()]
    for flag in flags:
        assert "0 chart(s) failed" in helm(version, "lint", "--strict", CHART, flag)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_package_holds_what_is_installed(version: int, tmp_path: Any) -> None:
    helm(version, "package", CHART, "--destination", tmp_path)
    [package] = tmp_path.glob("pdserve-*.tgz")
    packed = helm(version, "template", "rel", package)
    assert packed == helm(version, "template", "rel", CHART)


@pytest.mark.parametrize("case", CASES)
def test_no_name_or_label_is_too_long_and_no_object_is_there_twice(case: str) -> None:
    manifests = render(CASES[case])
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    assert len(set(names)) == len(names)
    for manifest in manifests:
        assert len(manifest["metadata"]["name"]) <= 63
        for value in manifest["metadata"]["labels"].values():
            assert len(value) <= 63
