"""Every value that the schema knows changes what is rendered.

The chart is rendered hundreds of times: as charts within one chart, which Helm does in one run.
"""

import copy
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any, TypeAlias

import yaml
from everything import SETS
from rendering import CHART, LEADER_WORKER_SET, helm, pod_templates, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
Path: TypeAlias = tuple[str | int, ...]

# Values that a definition of the schema takes, other than any default.
SAMPLES: dict[str, Any] = {
    "name": "sample",
    "labels": {"sample": "yes"},
    "podLabels": {"sample": "yes"},
    "annotations": {"sample": "yes"},
    "amounts": {"cpu": "7", "memory": "7Gi"},
    "quantity": "7Gi",
    "port": 1234,
    "seconds": 1234,
    "countOrPercent": "25%",
    "labelKey": "example.com/sample",
    "labelKeyOrNone": "example.com/sample",
    "secretKey": "sample",
    "nodeName": "sample",
    "serverName": "sample.internal",
    "tolerations": [{"key": "sample", "operator": "Exists"}],
    "topologySpread": [{"topologyKey": "sample"}],
    "env": [{"name": "SAMPLE", "value": "yes"}],
    "volumes": [{"name": "sample", "emptyDir": {}}],
    "volumeMounts": [{"name": "sample", "mountPath": "/sample"}],
    "networks": ["sample"],
    "peers": [{"podSelector": {"matchLabels": {"sample": "yes"}}}],
}
# The same for what has no definition of its own, by the end of its path.
SAMPLES_AT: dict[str, Any] = {
    "model": "/models/sample",
    "image.repository": "sample",
    "image.tag": "sample",
    "image.digest": f"sha256:{'0' * 64}",
    "imagePullSecrets": [{"name": "sample"}],
    "modelFiles.mountPath": "/models/",
    "hub.endpoint": "http://sample",
    "listen": "::",
    "nameOverride": "sample",
    "fullnameOverride": "sample",
    "podSecurityContext": {"supplementalGroups": [7]},
    "containerSecurityContext": {"privileged": False},
    "gpu.product": "NVIDIA-SAMPLE",
    "autoscaling.metric": "pdserve_leases",
    "autoscaling.target": 5,
    "autoscaling.kind": "ScaledObject",
    "gpu.count": 0,
    "gpu.perNode": 4,
    "autoscaling.prometheus": "http://sample",
    "placement.nodes": ["sample"],
    "grouping.prefer": ["example.com/sample"],
    "service.loadBalancerClass": "example.com/sample",
    "service.loadBalancerSourceRanges": ["192.0.2.0/24"],
    "httpRoute.parentRefs": [{"name": "sample"}],
    "httpRoute.hostnames": ["sample"],
    "podMonitor.interval": "7s",
    "test.prompt": "Sample?",
    "name": "sample",
    "slo.attainment": 0.5,
    "dashboard.labels": {"sample": "yes"},
}
# Values that cannot change alone: other tests are about them.
COUPLED = {
    "global",  # Helm's own
    "allowUnsupported",  # refuses
    "router.config.colocated",  # goes with prefill.pools
    "prefill.pools.0.tensorParallelism",  # goes with gpu.count
    "prefill.pools.0.pipelineParallelism",
    "decode.pools.0.tensorParallelism",
    "decode.pools.0.pipelineParallelism",
}

PREFILL_POOLS = ("prefill", "pools")


def leaves(schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every value that can be set, with its schema; a pool is the first one of its phase."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found = {**SCHEMA["definitions"].get(name, {}), "definition": name} if name else schema
    if name in SAMPLES or ".".join(map(str, path[-2:])) in SAMPLES_AT:
        yield path, found
    elif "properties" in found:
        for key, each in found["properties"].items():
            inner = leaves(each, (*path, key))
            # What a pool can have is gone through in one place, and all options in another.
            if name in ("instance", "pool") and path[:2] not in (("instances",), PREFILL_POOLS):
                yield next(inner)
            elif name != "instanceOptions" or path[:2] == PREFILL_POOLS or key == "log_level":
                yield from inner
    elif found.get("items", {}).get("$ref") == "#/definitions/pool":
        yield from leaves(found["items"], (*path, 0))
    else:
        yield path, found


def other(path: Path, schema: dict[str, Any], now: Any) -> Any:
    """A value that is allowed there and is not what is there now."""
    for known in (".".join(map(str, path[-2:])), str(path[-1])):
        if known in SAMPLES_AT:
            return SAMPLES_AT[known]
    if schema.get("definition") in SAMPLES:
        return SAMPLES[schema["definition"]]
    if "enum" in schema:
        return next(each for each in schema["enum"] if each != now)
    match schema.get("type"):
        case "boolean":
            return not now
        case "integer" | "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            high = schema.get("maximum", schema.get("exclusiveMaximum", low + 4))
            return next(
                each for each in (low + 2, low + 1, high) if each not in (now, 0) and each <= high
            )
        case "string":
            return "sample"
        case "object":
            return {"sample": "yes"}
    raise AssertionError(f"no sample for {path}: {schema}")


def value_at(values: Any, path: Path) -> Any:
    for key in path:
        try:
            values = values[key]
        except (KeyError, IndexError):
            return None
    return values


def changed(values: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(values)
    place: Any = values
    for key in path[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    place[path[-1]] = value
    return values


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Maps merged, the later one winning, as Helm does it."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
EVERYTHING = merged(
    DEFAULTS,
    SETS["full"],
    {
        "nameOverride": "pdserve",
        # Large, and about few values.
        "dashboard": {"enabled": False},
        "prefill": {"pools": [{"name": "p", "replicas": 1, "group": 0}]},
        "decode": {"pools": [{"name": "d", "replicas": 1, "group": 0}]},
    },
)
_WIDE = [{"name": "wide", "replicas": 1, "tensorParallelism": 16, "gpu": {"count": 16}}]
# Values that show in other circumstances only: which, by the path.
CIRCUMSTANCES: dict[str, dict[str, Any]] = {
    r"(instances|defaults|0)\.autoscaling\.(?!enabled)": {
        "instances": {
            "autoscaling": {"enabled": True, "prometheus": "http://prometheus", "target": 7}
        }
    },
    r"autoscaling\.prometheus": {"instances": {"autoscaling": {"kind": "ScaledObject"}}},
    r"autoscaling\.target": {"instances": {"autoscaling": {"metric": "pdserve_leases"}}},
    r"slo|dashboard\.(?!enabled)": {"dashboard": {"enabled": True}},
    r"router\.autoscaling\.(?!enabled)": {"router": {"autoscaling": {"enabled": True}}},
    r"gpu\.count": {"instances": {"gpu": {"product": ""}}},
    r"gpu\.perNode": {"prefill": {"pools": _WIDE}, "decode": {"pools": _WIDE}},
    r"decode.*perNode": {"prefill": {"pools": EVERYTHING["prefill"]["pools"]}},
    r"prefill.*perNode": {"decode": {"pools": EVERYTHING["decode"]["pools"]}},
    r"instances.*perNode": {"decode": {"pools": EVERYTHING["decode"]["pools"]}},
    r"networkPolicy\.enabled": {"networkPolicy": {"clients": [], "monitoring": []}},
}


def circumstances(path: Path) -> dict[str, Any]:
    """Values in which the one at `path` should show."""
    name = ".".join(map(str, path))
    fitting = (each for pattern, each in CIRCUMSTANCES.items() if re.search(pattern, name))
    return merged(EVERYTHING, *fitting)


def rendered(cases: list[dict[str, Any]], folder: File) -> list[str]:
    """What the chart makes of each of the values, as text."""
    names = [f"case{index:04}" for index in range(len(cases))]
    # Without the schema, which costs Helm most of the time.
    ignored = shutil.ignore_patterns("values.schema.json", "NOTES.txt")
    shutil.copytree(CHART, folder / "charts" / "pdserve", ignore=ignored)
    version = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["version"]
    chart = {
        "apiVersion": "v2",
        "name": "all",
        "version": "1.0.0",
        "dependencies": [
            {"name": "pdserve", "version": version, "alias": name, "repository": ""}
            for name in names
        ],
    }
    (folder / "Chart.yaml").write_text(json.dumps(chart))
    (folder / "values.yaml").write_text(json.dumps(dict(zip(names, cases, strict=True))))
    text = helm(4, "template", "rel", folder, "--api-versions", LEADER_WORKER_SET)
    parts: dict[str, list[str]] = {name: [] for name in names}
    for part in text.split("\n---\n# Source: all/charts/")[1:]:
        name = part[:8]
        parts[name].append(part.replace(name, "pdserve"))
    return ["\n".join(sorted(parts[name])) for name in names]


def test_every_value_changes_something(tmp_path: File) -> None:
    paths = [
        (path, schema) for path, schema in leaves(SCHEMA) if ".".join(map(str, path)) not in COUPLED
    ]
    before = [circumstances(path) for path, _ in paths]
    after = [
        changed(values, path, other(path, schema, value_at(values, path)))
        for values, (path, schema) in zip(before, paths, strict=True)
    ]
    distinct = {json.dumps(values): values for values in (*before, *after)}
    texts = dict(zip(distinct, rendered([*distinct.values()], tmp_path), strict=True))
    assert all(texts.values())
    idle = [
        ".".join(map(str, path))
        for (path, _), old, new in zip(paths, before, after, strict=True)
        if texts[json.dumps(old)] == texts[json.dumps(new)]
    ]
    assert not idle
    assert len(paths) > 200


def test_tensor_and_pipeline_parallelism_are_told_apart() -> None:
    def parallelism(tp: int, pp: int) -> str:
        sizes = {"tensorParallelism": tp, "pipelineParallelism": pp, "gpu": {"count": tp * pp}}
        pool = {"name": "p", "replicas": 1, **sizes}
        manifests = render({"allowUnsupported": True, "prefill": {"pools": [pool]}})
        annotations = pod_templates(manifests)["rel-pdserve-p"]["metadata"]["annotations"]
        return str(annotations["pdserve.io/parallelism"])

    assert parallelism(2, 4) == "tp=2 pp=4"
    assert parallelism(4, 2) == "tp=4 pp=2"
