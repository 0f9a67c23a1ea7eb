"""The chart, rendered by the real Helm of both major versions; each set of values once."""

import functools
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.doubles.kube.tools import kube_tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "pdserve"
EXAMPLES = {path.stem: path for path in sorted((CHART / "examples").glob("*.yaml"))}
VERSIONS = (3, 4)
RELEASE, NAMESPACE = "rel", "llm"
TIMEOUT_S = 100
NAME = f"{RELEASE}-pdserve"
LEADER_WORKER_SET = "leaderworkerset.x-k8s.io/v1"

Values = Mapping[str, Any]
Manifest = dict[str, Any]


class HelmError(Exception):
    """Helm's words when it refuses."""


def helm_binary(version: int) -> Path:
    """The real Helm of a major version."""
    tools = kube_tools()
    return {3: tools.helm3, 4: tools.helm4}[version]


def helm(version: int, *arguments: str | Path, environ: Mapping[str, str] | None = None) -> str:
    """What `helm` of that major version prints. Raises `HelmError`."""
    command = [str(helm_binary(version)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environ)
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def render(
    values: Values | None = None, *, version: int = 4, apis: Sequence[str] = (LEADER_WORKER_SET,)
) -> list[Manifest]:
    """The objects that the chart makes of `values`, in a cluster that has these `apis` too.

    They are shared: nobody may change them. Raises `HelmError` where the values are refused.
    """
    return _rendered(json.dumps(values or {}), version, tuple(apis))


def example(name: str) -> Values:
    """The values of an example."""
    return dict(yaml.safe_load(EXAMPLES[name].read_text("utf-8")))


def of_kind(manifests: Iterable[Manifest], kind: str) -> dict[str, Manifest]:
    """The objects of a kind by their names."""
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def pod_templates(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """Every pod that the objects make or are, by the name of its object."""
    templates = {}
    for each in manifests:
        name = each["metadata"]["name"]
        match each["kind"]:
            case "Pod":
                templates[name] = each
            case "Deployment":
                templates[name] = each["spec"]["template"]
            case "LeaderWorkerSet":
                group = each["spec"]["leaderWorkerTemplate"]
                templates[name] = group["leaderTemplate"]
                templates[f"{name} (worker)"] = group["workerTemplate"]
    return templates


def container(template: Manifest) -> Manifest:
    """The one container of a pod."""
    [only] = template["spec"]["containers"]
    return dict(only)


def options(template: Manifest) -> dict[str, str]:
    """The options among the arguments of a pod's container, as they stand there."""
    flags = (each.partition("=") for each in container(template)["args"] if each.startswith("--"))
    return {name.removeprefix("--"): value for name, _, value in flags}


@functools.cache
def _rendered(values: str, version: int, apis: tuple[str, ...]) -> list[Manifest]:
    # JSON is YAML; a file would have to be somewhere.
    command = [helm_binary(version), "template", RELEASE, CHART, "--namespace", NAMESPACE]
    flags = [flag for api in apis for flag in ("--api-versions", api)]
    done = subprocess.run(
        [*map(str, command), *flags, "--values", "-"],
        input=values,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise HelmError(done.stderr)
    return [manifest for manifest in yaml.load_all(done.stdout, yaml.CSafeLoader) if manifest]
