"""The real helm and kubectl, for tests."""

import functools
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.fetch_kube_tools import FetchError, fetch


@dataclass(frozen=True, slots=True)
class KubeTools:
    """Where the binaries are."""

    helm3: Path
    helm4: Path
    kubectl: Path


@functools.cache
def kube_tools() -> KubeTools:
    """The tools, fetched the first time; skips the test where no registry can be reached."""
    try:
        return KubeTools(**fetch())
    except FetchError as error:
        pytest.skip(f"helm and kubectl cannot be fetched: {error}")
