"""Schemas of the kinds that Kubernetes itself does not have, as far as the chart uses them."""

from typing import Any


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
# Checked as the parts of kinds that Kubernetes knows.
_TEMPLATE = {"type": "object", "required": ["metadata", "spec"]}
_BEHAVIOR = {"type": "object"}
_SELECTOR = {"type": "object"}


def _custom(api: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"type": "object", "required": ["name", "labels"]}
    return _object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": api},
        kind={"const": kind},
        metadata=metadata,
        spec=spec,
    )


SCHEMAS = {
    "LeaderWorkerSet": _custom(
        "leaderworkerset.x-k8s.io/v1",
        "LeaderWorkerSet",
        _object(
            ("leaderWorkerTemplate",),
            replicas=_COUNT,
            rolloutStrategy=_object(
                ("type",),
                type={"const": "RollingUpdate"},
                rollingUpdateConfiguration=_object(
                    (),
                    maxSurge={"type": ["integer", "string"]},
                    maxUnavailable={"type": ["integer", "string"]},
                ),
            ),
            leaderWorkerTemplate=_object(
                ("workerTemplate", "size"),
                size={"type": "integer", "minimum": 2},
                restartPolicy={"enum": ["RecreateGroupOnPodRestart", "None"]},
                leaderTemplate=_TEMPLATE,
                workerTemplate=_TEMPLATE,
            ),
        ),
    ),
    "PodMonitor": _custom(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        _object(
            ("selector", "podMetricsEndpoints"),
            podTargetLabels={"type": "array", "items": _TEXT},
            selector=_SELECTOR,
            podMetricsEndpoints={
                "type": "array",
                "minItems": 1,
                "items": _object(("port",), port=_TEXT, path=_TEXT, interval=_TEXT),
            },
        ),
    ),
    "ScaledObject": _custom(
        "keda.sh/v1alpha1",
        "ScaledObject",
        _object(
            ("scaleTargetRef", "triggers"),
            scaleTargetRef=_object(("name",), apiVersion=_TEXT, kind=_TEXT, name=_TEXT),
            minReplicaCount=_COUNT,
            maxReplicaCount=_COUNT,
            advanced=_object((), horizontalPodAutoscalerConfig=_object((), behavior=_BEHAVIOR)),
            triggers={
                "type": "array",
                "minItems": 1,
                "items": _object(
                    ("type", "metadata"),
                    type={"const": "prometheus"},
                    metricType={"enum": ["AverageValue", "Value"]},
                    # KEDA takes text only.
                    metadata=_object(
                        ("serverAddress", "query", "threshold", "ignoreNullValues"),
                        serverAddress=_TEXT,
                        query=_TEXT,
                        threshold=_TEXT,
                        # "false": without metrics the replicas stay as they are.
                        ignoreNullValues={"const": "false"},
                    ),
                ),
            },
        ),
    ),
    "HTTPRoute": _custom(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        _object(
            ("parentRefs", "rules"),
            parentRefs={
                "type": "array",
                "minItems": 1,
                "items": _object(("name",), name=_TEXT, namespace=_TEXT, sectionName=_TEXT),
            },
            hostnames={"type": "array", "items": _TEXT},
            rules={
                "type": "array",
                "items": _object(
                    ("backendRefs",),
                    matches={
                        "type": "array",
                        "items": _object(
                            (), path=_object(("type", "value"), type=_TEXT, value=_TEXT)
                        ),
                    },
                    backendRefs={
                        "type": "array",
                        "items": _object(("name", "port"), name=_TEXT, port={"type": "integer"}),
                    },
                ),
            },
        ),
    ),
}
