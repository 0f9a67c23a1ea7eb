"""Which resources the API has: the built-in ones, and those of extensions that a test installs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.doubles.kube.errors import not_served


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object and where it is served."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    # What is written through paths of its own: `status`, `scale`.
    subresources: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """As manifests write it: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def has_status(self) -> bool:
        """Whether status is written apart from the rest."""
        return "status" in self.subresources

    @property
    def qualified(self) -> str:
        """As errors write it: `pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


STATUS = ("status",)
SCALED = ("status", "scale")


def _core(
    plural: str, kind: str, *short: str, namespaced: bool = True, sub: tuple[str, ...] = ()
) -> Resource:
    return Resource("", "v1", plural, kind, namespaced, short, sub)


def _apps(plural: str, kind: str, *short: str, sub: tuple[str, ...] = ()) -> Resource:
    return Resource("apps", "v1", plural, kind, True, short, sub)


def _rbac(plural: str, kind: str, *, namespaced: bool = True) -> Resource:
    return Resource("rbac.authorization.k8s.io", "v1", plural, kind, namespaced)


BUILT_IN = (
    _core("configmaps", "ConfigMap", "cm"),
    _core("endpoints", "Endpoints", "ep"),
    _core("events", "Event", "ev"),
    _core("limitranges", "LimitRange", "limits"),
    _core("namespaces", "Namespace", "ns", namespaced=False, sub=STATUS),
    _core("nodes", "Node", "no", namespaced=False, sub=STATUS),
    _core("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", sub=STATUS),
    _core("persistentvolumes", "PersistentVolume", "pv", namespaced=False, sub=STATUS),
    _core("pods", "Pod", "po", sub=STATUS),
    _core("replicationcontrollers", "ReplicationController", "rc", sub=SCALED),
    _core("resourcequotas", "ResourceQuota", "quota", sub=STATUS),
    _core("secrets", "Secret"),
    _core("serviceaccounts", "ServiceAccount", "sa"),
    _core("services", "Service", "svc", sub=STATUS),
    _apps("controllerrevisions", "ControllerRevision"),
    _apps("daemonsets", "DaemonSet", "ds", sub=STATUS),
    _apps("deployments", "Deployment", "deploy", sub=SCALED),
    _apps("replicasets", "ReplicaSet", "rs", sub=SCALED),
    _apps("statefulsets", "StatefulSet", "sts", sub=SCALED),
    Resource(
        "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler",
        short_names=("hpa",), subresources=STATUS,
    ),
    Resource("batch", "v1", "cronjobs", "CronJob", short_names=("cj",), subresources=STATUS),
    Resource("batch", "v1", "jobs", "Job", subresources=STATUS),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Resource(
        "networking.k8s.io", "v1", "ingresses", "Ingress", short_names=("ing",), subresources=STATUS
    ),
    Resource(
        "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short_names=("netpol",)
    ),
    Resource(
        "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget",
        short_names=("pdb",), subresources=STATUS,
    ),
    _rbac("clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    _rbac("clusterroles", "ClusterRole", namespaced=False),
    _rbac("rolebindings", "RoleBinding"),
    _rbac("roles", "Role"),
    Resource(
        "scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass",
        namespaced=False, short_names=("pc",),
    ),
    Resource(
        "storage.k8s.io", "v1", "storageclasses", "StorageClass",
        namespaced=False, short_names=("sc",),
    ),
)  # fmt: skip

# What a cluster has only where somebody installed it.
EXTENSIONS = (
    Resource(
        "k8s.cni.cncf.io", "v1", "network-attachment-definitions", "NetworkAttachmentDefinition"
    ),
    Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject", subresources=STATUS),
    Resource("keda.sh", "v1alpha1", "triggerauthentications", "TriggerAuthentication"),
    Resource(
        "leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet",
        short_names=("lws",), subresources=SCALED,
    ),
    Resource("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor"),
    Resource("monitoring.coreos.com", "v1", "prometheusrules", "PrometheusRule"),
    Resource("monitoring.coreos.com", "v1", "servicemonitors", "ServiceMonitor"),
)  # fmt: skip


class Resources:
    """The built-in resources and the extensions of the named kinds.

    Raises ValueError for a kind that is no known extension.
    """

    def __init__(self, extensions: Iterable[str] = ()) -> None:
        known = {resource.kind: resource for resource in EXTENSIONS}
        wanted = tuple(extensions)
        if unknown := sorted(set(wanted) - known.keys()):
            raise ValueError(f"no extension of kind {unknown}; known: {sorted(known)}")
        self._all = (*BUILT_IN, *(known[kind] for kind in wanted))

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._all)

    def of_kind(self, kind: str) -> Resource:
        """The resource whose objects are of this kind; raises ApiError where there is none."""
        for resource in self._all:
            if resource.kind == kind:
                return resource
        raise not_served(kind)

    def at(self, group: str, version: str, plural: str) -> Resource | None:
        """What is served under that path, if anything."""
        for resource in self._all:
            if (resource.group, resource.version, resource.plural) == (group, version, plural):
                return resource
        return None

    def versions(self) -> dict[str, list[str]]:
        """The versions of each group; the core group is ``."""
        found: dict[str, list[str]] = {}
        for resource in self._all:
            versions = found.setdefault(resource.group, [])
            if resource.version not in versions:
                versions.append(resource.version)
        return found
