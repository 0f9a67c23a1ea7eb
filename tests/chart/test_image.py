"""The image and the chart agree; what can be known of the image without building it."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator

import pytest
from everything import SETS
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rendering import ROOT, Manifest, container, pod_templates, render

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture
def pods() -> dict[str, Manifest]:
    return pod_templates(render(SETS["full"]))


def instructions(name: str) -> list[str]:
    """The arguments of every such instruction, lines that go on joined."""
    text = re.sub(r"\\\n", " ", DOCKERFILE)
    return re.findall(rf"^{name} +(.*)$", text, re.MULTILINE)


def environment() -> dict[str, str]:
    """What the last stage sets."""
    words = shlex.split(instructions("ENV")[-1])
    return dict(word.split("=", 1) for word in words)


def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements" / "image.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def needed() -> Iterator[Requirement]:
    """What pdserve needs with the extras that the image has."""
    [extras] = set(re.findall(r"'\.\[(.*)\]'", DOCKERFILE))
    groups = [PROJECT["optional-dependencies"][name] for name in extras.split(",")]
    for each in (*PROJECT["dependencies"], *(text for group in groups for text in group)):
        yield Requirement(each)


def test_the_user_is_the_one_that_pods_run_as(pods: dict[str, Manifest]) -> None:
    [user] = instructions("USER")
    for pod in pods.values():
        security = pod["spec"]["securityContext"]
        assert user == f"{security['runAsUser']}:{security['runAsGroup']}"


def test_all_that_is_written_lies_in_volumes(pods: dict[str, Manifest]) -> None:
    assert environment()["HOME"] == "/tmp"
    for pod in pods.values():
        mounts = [each for each in container(pod)["volumeMounts"] if "readOnly" not in each]
        paths = [each["mountPath"] for each in mounts]
        assert "/tmp" in paths
        if container(pod)["args"][0] == "generate":  # a client keeps nothing
            continue
        for name in ("HF_HOME", "PDSERVE_CACHE_DIR"):
            assert any(environment()[name].startswith(path) for path in paths)


def test_the_image_runs_pdserve_behind_an_init(pods: dict[str, Manifest]) -> None:
    # Number 1 ignores signals without a handler, so that SIGTERM would not end one that loads.
    assert json.loads(instructions("ENTRYPOINT")[-1]) == ["tini", "--", "pdserve"]
    assert all("command" not in container(pod) for pod in pods.values())
    assert "tini" in DOCKERFILE.partition("AS image")[2]


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    versions = pinned()
    for requirement in needed():
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
    # Those of the variants differ in their local part alone.
    assert not any("+" in version for version in versions.values())


def test_the_last_stage_installs_nothing_that_compiles() -> None:
    last = DOCKERFILE.partition("AS image")[2]
    assert not re.search(r"gcc|g\+\+|build-essential|\bmake\b|pip install", last)
    assert "--only-binary :all:" in DOCKERFILE


def test_both_variants_can_have_torch_from_elsewhere() -> None:
    for variant in ("cpu", "cuda"):
        stage = DOCKERFILE.partition(f"AS torch-{variant}\n")[2].partition("\nFROM ")[0]
        assert "\nARG TORCH_INDEX=" in f"\n{stage}"
        assert '--extra-index-url "${TORCH_INDEX}"' in stage


def test_what_is_copied_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = (each.split()[:-1] for each in instructions("COPY") if "--from" not in each)
    assert {source for sources in copied for source in sources} == kept
    assert all((ROOT / name).exists() for name in kept)


def test_its_version_is_that_of_pdserve_and_of_the_chart(pods: dict[str, Manifest]) -> None:
    version = PROJECT["version"]
    assert f"ARG VERSION={version}" in DOCKERFILE
    chart = (ROOT / "charts" / "pdserve" / "Chart.yaml").read_text("utf-8")
    assert f"\nappVersion: {version}\n" in chart
    router = container(pods["rel-pdserve-router"])["image"]
    assert router == f"pdserve:{version}-cpu"
