"""Where the instances are looked for, as the option `instances` says it.

    instances.yaml                                  a file, read again when it changes
    kube:[namespace/]app.kubernetes.io/instance=a   pods with these labels
    dns:prefill=host:port,decode=host:port          the addresses behind names

A file whose name begins like the others is written as ./kube:…
"""

import re
from pathlib import Path

from pdserve.address import is_host_port
from pdserve.cluster.discovery import Discovery
from pdserve.cluster.dns import DnsDiscovery, Service
from pdserve.cluster.file import FileDiscovery
from pdserve.cluster.instance import Role
from pdserve.cluster.kubernetes import KubernetesDiscovery
from pdserve.cluster.kubernetes_pod import PlaceLabels
from pdserve.errors import ConfigError

_KUBE, _DNS = "kube:", "dns:"
# A name of a namespace has no dots, and a prefix of a label has.
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def make_discovery(instances: str, rack_label: str) -> Discovery:
    """The discovery that the option `instances` asks for.

    `rack_label` is the label of Kubernetes nodes that names their rack. Raises `ConfigError` where
    the option cannot be understood, or its file or the Kubernetes client cannot be used.
    """
    if not instances:
        raise _wrong(instances, "name a YAML file, kube:[namespace/]selector or dns:role=host:port")
    if instances.startswith(_KUBE):
        namespace, selector = _pods(instances.removeprefix(_KUBE))
        return KubernetesDiscovery(namespace, selector, PlaceLabels(rack_label))
    if instances.startswith(_DNS):
        entries = instances.removeprefix(_DNS).split(",")
        return DnsDiscovery([_service(instances, entry.strip()) for entry in entries])
    return FileDiscovery(Path(instances))


def _pods(text: str) -> tuple[str, str]:
    """Namespace and label selector; each may be empty."""
    before, slash, after = text.partition("/")
    if slash and _NAMESPACE.fullmatch(before):
        return before, after.strip()
    return "", text.strip()


def _service(instances: str, entry: str) -> Service:
    role, equals, address = entry.partition("=")
    if not equals or role not in list(Role) or not is_host_port(address):
        raise _wrong(instances, f"{entry!r} must be prefill=host:port or decode=host:port")
    host, _, port = address.rpartition(":")
    return Service(Role(role), host.strip("[]"), int(port))


def _wrong(instances: str, why: str) -> ConfigError:
    return ConfigError(f"instances is {instances!r}: {why}", field="instances")
