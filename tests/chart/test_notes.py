"""What Helm says after an installation."""

import json
from pathlib import Path
from typing import Any

import pytest
from everything import SETS
from rendering import CHART, helm

ONE = {"name": "d", "replicas": 1}
SPARE = {"maxSurge": 1, "maxUnavailable": 0}


def notes(values: dict[str, Any], folder: Path) -> str:
    """The notes, which Helm renders without a cluster too."""
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    said = helm(4, "install", "rel", CHART, "--dry-run=client", f"--values={file}")
    return said.partition("\nNOTES:\n")[2]


def decode(*pools: dict[str, Any]) -> dict[str, Any]:
    return {"decode": {"pools": list(pools)}}


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        (decode(ONE), True),
        (decode(ONE, {**ONE, "name": "e"}), True),
        (decode(ONE, {"name": "e", "replicas": 2}), False),
        (decode({**ONE, "rollout": SPARE}), False),
        (decode({"name": "d", "replicas": 4, "rollout": {"maxUnavailable": "100%"}}), True),
        (decode({"name": "d", "replicas": 4, "rollout": {"maxUnavailable": "99%"}}), False),
        (decode({**ONE, "rollout": {"maxSurge": "0%", "maxUnavailable": "50%"}}), True),
    ],
)
def test_a_rollout_that_may_leave_no_instance_is_told(
    values: dict[str, Any], warned: bool, tmp_path: Path
) -> None:
    assert ("an upgrade may end all decode instances at once" in notes(values, tmp_path)) == warned


def test_what_has_no_effect_or_needs_more_is_told(tmp_path: Path) -> None:
    said = notes(
        {**SETS["full"], "allowUnsupported": True, "prefill": {"pools": [{**ONE, "name": "p"}]}},
        tmp_path,
    )
    assert "rdma.ipcLock of d has no effect" in said
    assert "nginx.ingress.kubernetes.io/backend-protocol: HTTPS" in said
    scaled = notes(SETS["scaled"], tmp_path)
    assert "p is scaled by what Prometheus knows, but podMonitor.enabled is false" in scaled
    assert "backend-protocol" not in scaled
