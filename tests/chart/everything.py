"""Values that turn everything on, in sets of what goes together."""

from typing import Any

# One instance of each kind, with all that a pool can have.
_FULL: dict[str, Any] = {
    "model": "/models/m",
    "slo": {"ttft_ms": 500, "tpot_ms": 50, "attainment": 0.95},
    "allowUnsupported": True,
    "imagePullSecrets": [{"name": "registry"}],
    "modelFiles": {
        "claim": "models",
        "hub": {"tokenSecret": "hub", "endpoint": "http://hub.local", "cacheClaim": "hub-cache"},
    },
    "instances": {
        "config": {"log_level": "debug", "drain_grace_s": 12.5, "kv_memory_bytes": 1 << 33},
        "gpu": {"product": "NVIDIA-H100-80GB-HBM3", "count": 1},
        "rdma": {"resource": "rdma/a", "ipcLock": True},
        "networks": ["llm/rdma"],
        "nodeSelector": {"disk": "nvme"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "placement": {"nodes": ["a", "b"]},
        "grouping": {"require": "topology.kubernetes.io/zone"},
        "priorityClassName": "high",
        "runtimeClassName": "nvidia",
        "preStopSeconds": 2,
        "podLabels": {"team": "llm"},
        "podAnnotations": {"note": "yes"},
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "volumes": [{"name": "extra", "emptyDir": {}}],
        "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    },
    "prefill": {
        "pools": [
            {"name": "p", "replicas": 2, "group": 0},
            {
                "name": "wide",
                "replicas": 1,
                "group": 1,
                "tensorParallelism": 8,
                "pipelineParallelism": 2,
                "gpu": {"count": 16},
            },
        ]
    },
    "decode": {"pools": [{"name": "d", "replicas": 3, "group": 0}]},
    "router": {
        "config": {"slo_hard": True, "max_running": 2000000 // 2},
        "nodeSelector": {"role": "infra"},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "high",
        "runtimeClassName": "runc",
        "service": {
            "type": "LoadBalancer",
            "annotations": {"lb": "internal"},
            "loadBalancerClass": "example.com/lb",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
        },
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "tlsSecret": "ingress-tls",
            "annotations": {"a": "b"},
        },
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "gateway"}],
            "hostnames": ["llm.example.com"],
            "annotations": {"a": "b"},
        },
        "podLabels": {"team": "llm"},
        "podAnnotations": {"note": "yes"},
        "env": [{"name": "A", "value": "b"}],
        "volumes": [{"name": "extra", "emptyDir": {}}],
        "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    },
    "serviceAccounts": {
        "router": {"name": "r", "annotations": {"a": "b"}},
        "instance": {"name": "i", "annotations": {"a": "b"}},
    },
    "rbac": {"nodes": True},
    "tls": {"links": {"secret": "links"}, "door": {"secret": "door", "clientCertificates": True}},
    "apiKeys": {"secret": "keys"},
    "networkPolicy": {
        "enabled": True,
        "clients": [{"namespaceSelector": {"matchLabels": {"team": "llm"}}}],
        "monitoring": [{"namespaceSelector": {}}],
    },
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True, "annotations": {"folder": "LLM"}},
    "test": {"apiKey": {"secret": "test-key"}},
}
_SCALED: dict[str, Any] = {
    "instances": {"autoscaling": {"enabled": True, "prometheus": "http://prometheus:9090"}},
    "prefill": {
        "defaults": {"autoscaling": {"kind": "ScaledObject"}},
        "pools": [{"name": "p", "replicas": 1}],
    },
    "decode": {"pools": [{"name": "d", "replicas": 1}]},
    "router": {"autoscaling": {"enabled": True}, "discovery": "dns"},
}
_COLOCATED: dict[str, Any] = {
    "prefill": {"pools": []},
    "router": {"config": {"colocated": True}},
    "listen": "::",
}

SETS = {"full": _FULL, "scaled": _SCALED, "colocated": _COLOCATED, "default": {}}
