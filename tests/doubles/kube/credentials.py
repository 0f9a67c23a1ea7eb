"""The files by which clients find the server and say who they are."""

import base64
from dataclasses import dataclass
from pathlib import Path

import yaml
from yarl import URL


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is; `ca` is the certificate to trust, empty without TLS."""

    url: str
    ca: bytes = b""


def write_kubeconfig(endpoint: Endpoint, path: Path, user: str, namespace: str) -> Path:
    """Writes the configuration of kubectl, helm and clients outside of the cluster."""
    cluster = {"server": endpoint.url}
    if endpoint.ca:
        cluster["certificate-authority-data"] = base64.b64encode(endpoint.ca).decode()
    context = {"cluster": "test", "user": user, "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": user}}],
        "contexts": [{"name": "test", "context": context}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def write_service_account(
    endpoint: Endpoint, folder: Path, user: str, namespace: str
) -> dict[str, str]:
    """Writes what a pod finds in /var/run/secrets/kubernetes.io/serviceaccount.

    Returns the environment that the kubelet gives it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(user)
    (folder / "namespace").write_text(namespace)
    (folder / "ca.crt").write_bytes(endpoint.ca)
    url = URL(endpoint.url)
    return {"KUBERNETES_SERVICE_HOST": str(url.host), "KUBERNETES_SERVICE_PORT": str(url.port)}
