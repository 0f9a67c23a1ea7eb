"""The `scale` of an object: how many replicas it shall have, in the same shape for every kind."""

from tests.doubles.kube.store import Manifest

SHARED = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(manifest: Manifest) -> Manifest:
    """The Scale of an object that has replicas."""
    metadata = manifest["metadata"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: metadata[field] for field in SHARED if field in metadata},
        "spec": {"replicas": manifest["spec"].get("replicas", 1)},
        "status": {"replicas": manifest.get("status", {}).get("replicas", 0)},
    }


def scaled(manifest: Manifest, scale: Manifest) -> Manifest:
    """The object with as many replicas as the Scale says."""
    metadata = dict(manifest["metadata"])
    if version := scale["metadata"].get("resourceVersion"):
        metadata["resourceVersion"] = version
    spec = {**manifest["spec"], "replicas": scale["spec"]["replicas"]}
    return {**manifest, "metadata": metadata, "spec": spec}
