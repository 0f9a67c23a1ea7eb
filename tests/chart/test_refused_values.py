"""Values that make no sense are refused, in a sentence that names them."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from rendering import VERSIONS, HelmError, Values, render


def prefill(**pool: Any) -> Values:
    return {"prefill": {"pools": [{"name": "p", "replicas": 1, **pool}]}}


def tensor_parallel(count: int, **gpu: Any) -> Values:
    pool = prefill(tensorParallelism=count, gpu={"count": count, **gpu})
    return {"allowUnsupported": True, **pool}


# What a user may get wrong, and what the refusal must say of it.
WRONG: dict[str, tuple[Values, str]] = {
    "unknown key": ({"modle": "m"}, "modle"),
    "unknown key of a pool": (prefill(replica=2), "replica"),
    "unknown option": (prefill(config={"max_batch_token": 1}), "max_batch_token"),
    "option of the wrong type": (prefill(config={"max_batch_seqs": "64"}), "max_batch_seqs"),
    "option out of range": (prefill(config={"kv_memory_fraction": 1.5}), "kv_memory_fraction"),
    "negative option": (prefill(config={"max_batch_tokens": -1}), "max_batch_tokens"),
    "option that is none of the choices": (prefill(config={"dtype": "int4"}), "dtype"),
    "option that the chart sets": (prefill(config={"port": 1}), "port"),
    "option of the router for an instance": (prefill(config={"placer": "random"}), "placer"),
    "option of an instance for the router": ({"router": {"config": {"dtype": "auto"}}}, "dtype"),
    "empty model": ({"model": ""}, "model"),
    "model of the planner's disk": ({"model": "Llama-3.1-70B"}, "model: is Llama-3.1-70B"),
    "model by a relative path": ({"model": "./org/model"}, "model: is ./org/model"),
    "model that is no text": ({"model": 7}, "model"),
    "replicas below 0": (prefill(replicas=-1), "replicas"),
    "half a replica": (prefill(replicas=1.5), "replicas"),
    "pool without replicas": ({"decode": {"pools": [{"name": "d"}]}}, "replicas"),
    "pool without a name": ({"decode": {"pools": [{"replicas": 1}]}}, "name"),
    "name with capitals": (prefill(name="P"), "name"),
    "name that is too long": (prefill(name="prefill-on-the-large-nodes"), "name"),
    "name of the router": (prefill(name="router"), "name"),
    "pool that is there twice": (prefill(name="decode-0"), "decode.pools[0].name: decode-0"),
    "no decode": ({"decode": {"pools": []}}, "decode.pools: is empty"),
    "no prefill": ({"prefill": {"pools": []}}, "prefill.pools: is empty"),
    "colocated with prefill": (
        {"router": {"config": {"colocated": True}}},
        "router.config.colocated: is true",
    ),
    "TP that the engine does not have": (
        prefill(tensorParallelism=2, gpu={"count": 2}),
        "prefill.pools[0].tensorParallelism: TP × PP is 2",
    ),
    "GPUs that are not TP × PP": (prefill(gpu={"count": 2}), "prefill.pools[0].gpu.count: is 2"),
    "TP without GPUs": (
        {"allowUnsupported": True, **prefill(tensorParallelism=2)},
        "prefill.pools[0].gpu.count: is 0",
    ),
    "GPUs that do not fit nodes": (tensor_parallel(9), "prefill.pools[0].gpu.perNode: 9 GPUs"),
    "product without GPUs": (
        prefill(gpu={"product": "NVIDIA-L4"}),
        "prefill.pools[0].gpu.product: is NVIDIA-L4",
    ),
    "GPUs as resources": (
        prefill(resources={"limits": {"nvidia.com/gpu": 1}}),
        "prefill.pools[0].resources: nvidia.com/gpu",
    ),
    "memory that is no amount": (prefill(resources={"limits": {"memory": "4 GB"}}), "memory"),
    "rollout that cannot move": (
        prefill(rollout={"maxSurge": 0, "maxUnavailable": "0%"}),
        "prefill.pools[0].rollout.maxSurge: is 0",
    ),
    "node that is no name": (prefill(placement={"nodes": ["Node A"]}), "nodes"),
    "node that is there twice": (prefill(placement={"nodes": ["a", "a"]}), "nodes"),
    "place that is no label": (prefill(grouping={"require": "the same rack"}), "require"),
    "spread without a place": (prefill(topologySpread=[{"maxSkew": 1}]), "topologyKey"),
    "IPC_LOCK without RDMA": (
        prefill(rdma={"ipcLock": True}),
        "prefill.pools[0].rdma.ipcLock: is true",
    ),
    "label of the chart": (prefill(podLabels={"pdserve.io/role": "decode"}), "podLabels"),
    "environment of the chart": (prefill(env=[{"name": "PDSERVE_NAME"}]), "env"),
    "volume of the chart": (prefill(volumes=[{"name": "shm"}]), "volumes"),
    "autoscaling of an unknown kind": (prefill(autoscaling={"kind": "VPA"}), "kind"),
    "metric of somebody else": (prefill(autoscaling={"metric": "queue_length"}), "metric"),
    "metric without a target": (
        prefill(autoscaling={"metric": "pdserve_leases"}),
        "prefill.pools[0].autoscaling.target: is 0",
    ),
    "more at least than at most": (
        prefill(autoscaling={"enabled": True, "minReplicas": 5, "maxReplicas": 2}),
        "prefill.pools[0].autoscaling.minReplicas: is 5",
    ),
    "KEDA without Prometheus": (
        prefill(autoscaling={"enabled": True, "kind": "ScaledObject"}),
        "prefill.pools[0].autoscaling.prometheus: is empty",
    ),
    "routers: more at least than at most": (
        {"router": {"autoscaling": {"enabled": True, "minReplicas": 9}}},
        "router.autoscaling.minReplicas: is 9",
    ),
    "budget of nothing": (
        {"disruption": {"maxUnavailable": "0%"}},
        "disruption.maxUnavailable: is 0",
    ),
    "tag of a pool with a colon": (prefill(image={"tag": "a:b"}), "tag"),
    "port out of range": ({"ports": {"grpc": 70000}}, "grpc"),
    "two ports in one": ({"ports": {"grpc": 8000}}, "ports.http: is 8000"),
    "loopback": ({"listen": "127.0.0.1"}, "listen"),
    "objective of 0": ({"slo": {"ttft_ms": 0}}, "ttft_ms"),
    "attainment of 90": ({"slo": {"attainment": 90}}, "attainment"),
    "tag with a colon": ({"image": {"tag": "a:b"}}, "tag"),
    "digest that is none": ({"image": {"digest": "sha256:abc"}}, "digest"),
    "model outside its volume": (
        {"modelFiles": {"claim": "models"}},
        "model: is smollm2-135m-instruct",
    ),
    "volume in the way": ({"modelFiles": {"mountPath": "/etc/models"}}, "mountPath"),
    "unknown discovery": ({"router": {"discovery": "consul"}}, "discovery"),
    "unknown type of Service": ({"router": {"service": {"type": "NodePort"}}}, "type"),
    "route without a Gateway": ({"router": {"httpRoute": {"enabled": True}}}, "parentRefs"),
    "certificates of clients without TLS": (
        {"tls": {"door": {"clientCertificates": True}}},
        "tls.door.clientCertificates: is true",
    ),
    "TLS without a name": ({"tls": {"links": {"secret": "a", "serverName": ""}}}, "serverName"),
    "peers without a policy": (
        {"networkPolicy": {"monitoring": [{"podSelector": {}}]}},
        "networkPolicy.monitoring: is set",
    ),
    "peer that is nobody": ({"networkPolicy": {"enabled": True, "clients": [{}]}}, "clients"),
    "switch that is a text": ({"dashboard": {"enabled": "yes"}}, "enabled"),
}


@pytest.fixture(scope="module")
def refusals() -> dict[str, str]:
    """What Helm says to each set of values, by turns one and the other; "": it takes them."""

    def refusal(name: str, version: int) -> str:
        try:
            render(WRONG[name][0], version=version)
        except HelmError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(WRONG, pool.map(refusal, WRONG, itertools.cycle(VERSIONS)), strict=True))


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_with_a_sentence_that_names_it(name: str, refusals: dict[str, str]) -> None:
    assert WRONG[name][1] in refusals[name], refusals[name]


def test_an_instance_of_several_nodes_takes_a_cluster_that_has_leader_worker_sets() -> None:
    with pytest.raises(HelmError, match=r"prefill\.pools\[0\]\.gpu\.count: 16 GPUs.*leaderworker"):
        render(tensor_parallel(16), apis=())
    assert render(tensor_parallel(16))
