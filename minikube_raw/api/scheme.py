"""The table of kinds: how group, version, kind, resource name, URL path and published schema belong together.

It holds names only; rules per kind (defaults, validation, columns) are the API server's. `KINDS` is everything served,
every lookup below is an index over it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Subresource(NamedTuple):
    """A subresource such as `status`; `kind` names what travels (of `group`/`version`, empty: the parent's)."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table. `definition` names the schema, `storage` the key segment, one for all versions of a kind."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    definition: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
    subresources: tuple[Subresource, ...] = ()
    storage: str = ""
    storage_version_hash: str = ""

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`, as manifests write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """`pods` or `deployments.apps`, as messages write it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def subresource(self, name: str) -> Subresource | None:
        """Return the subresource of that name."""
        return next((sub for sub in self.subresources if sub.name == name), None)

    def key(self, namespace: str, name: str) -> str:
        """Return the store key, laid out as Kubernetes does in etcd: /registry/pods/NAMESPACE/NAME."""
        return self.prefix(namespace) + name

    def prefix(self, namespace: str = "") -> str:
        """Return the store prefix of all objects of the kind, or of one namespace's."""
        return (
            f"/registry/{self.storage}/{namespace}/" if self.namespaced and namespace else f"/registry/{self.storage}/"
        )


def _status(kind: str) -> Subresource:
    return Subresource("status", kind, ("get", "patch", "update"))


_SCALE = Subresource("scale", "Scale", ("get", "patch", "update"), "autoscaling", "v1")
_CORE = "io.k8s.api.core.v1."
_PROXY_VERBS = ("create", "delete", "get", "patch", "update")

POD = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    singular="pod",
    definition=_CORE + "Pod",
    short_names=("po",),
    categories=("all",),
    storage="pods",
    storage_version_hash="xPOwRZ+Yhw8=",
    subresources=(
        Subresource("attach", "PodAttachOptions", ("create", "get")),
        Subresource("binding", "Binding", ("create",)),
        Subresource("ephemeralcontainers", "Pod", ("get", "patch", "update")),
        Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
        Subresource("exec", "PodExecOptions", ("create", "get")),
        Subresource("log", "Pod", ("get",)),
        Subresource("portforward", "PodPortForwardOptions", ("create", "get")),
        Subresource("proxy", "PodProxyOptions", _PROXY_VERBS),
        Subresource("resize", "Pod", ("get", "patch", "update")),
        _status("Pod"),
    ),
)
NAMESPACE = Kind(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    singular="namespace",
    definition=_CORE + "Namespace",
    namespaced=False,
    short_names=("ns",),
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    storage="namespaces",
    storage_version_hash="Q3oi5N2YM8M=",
    subresources=(Subresource("finalize", "Namespace", ("update",)), _status("Namespace")),
)
NODE = Kind(
    group="",
    version="v1",
    kind="Node",
    plural="nodes",
    singular="node",
    definition=_CORE + "Node",
    namespaced=False,
    short_names=("no",),
    storage="minions",
    storage_version_hash="XwShjMxG9Fs=",
    subresources=(Subresource("proxy", "NodeProxyOptions", _PROXY_VERBS), _status("Node")),
)
CONFIG_MAP = Kind(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    singular="configmap",
    definition=_CORE + "ConfigMap",
    short_names=("cm",),
    storage="configmaps",
    storage_version_hash="qFsyl6wFWjQ=",
)
SECRET = Kind(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    singular="secret",
    definition=_CORE + "Secret",
    storage="secrets",
    storage_version_hash="S6u1pOWzb84=",
)
SERVICE = Kind(
    group="",
    version="v1",
    kind="Service",
    plural="services",
    singular="service",
    definition=_CORE + "Service",
    short_names=("svc",),
    categories=("all",),
    storage="services/specs",
    storage_version_hash="0/CO1lhkEBI=",
    subresources=(Subresource("proxy", "ServiceProxyOptions", _PROXY_VERBS), _status("Service")),
)
SERVICE_ACCOUNT = Kind(
    group="",
    version="v1",
    kind="ServiceAccount",
    plural="serviceaccounts",
    singular="serviceaccount",
    definition=_CORE + "ServiceAccount",
    short_names=("sa",),
    storage="serviceaccounts",
    storage_version_hash="pbx9ZvyFpBE=",
    subresources=(Subresource("token", "TokenRequest", ("create",), "authentication.k8s.io", "v1"),),
)
PERSISTENT_VOLUME = Kind(
    group="",
    version="v1",
    kind="PersistentVolume",
    plural="persistentvolumes",
    singular="persistentvolume",
    definition=_CORE + "PersistentVolume",
    namespaced=False,
    short_names=("pv",),
    storage="persistentvolumes",
    storage_version_hash="HN/zwEC+JgM=",
    subresources=(_status("PersistentVolume"),),
)
PERSISTENT_VOLUME_CLAIM = Kind(
    group="",
    version="v1",
    kind="PersistentVolumeClaim",
    plural="persistentvolumeclaims",
    singular="persistentvolumeclaim",
    definition=_CORE + "PersistentVolumeClaim",
    short_names=("pvc",),
    storage="persistentvolumeclaims",
    storage_version_hash="QWTyNDq0dC4=",
    subresources=(_status("PersistentVolumeClaim"),),
)
STORAGE_CLASS = Kind(
    group="storage.k8s.io",
    version="v1",
    kind="StorageClass",
    plural="storageclasses",
    singular="storageclass",
    definition="io.k8s.api.storage.v1.StorageClass",
    namespaced=False,
    short_names=("sc",),
    storage="storageclasses",
    storage_version_hash="K+m6uJwbjGY=",
)
RUNTIME_CLASS = Kind(
    group="node.k8s.io",
    version="v1",
    kind="RuntimeClass",
    plural="runtimeclasses",
    singular="runtimeclass",
    definition="io.k8s.api.node.v1.RuntimeClass",
    namespaced=False,
    storage="runtimeclasses",
    storage_version_hash="WQTu1GL3T2Q=",
)
EVENT = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    definition=_CORE + "Event",
    short_names=("ev",),
    storage="events",
    storage_version_hash="r2yiGXH7wu8=",
)
EVENTS_EVENT = Kind(
    group="events.k8s.io",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    definition="io.k8s.api.events.v1.Event",
    short_names=("ev",),
    storage="events",
    storage_version_hash="r2yiGXH7wu8=",
)
LEASE = Kind(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    singular="lease",
    definition="io.k8s.api.coordination.v1.Lease",
    storage="leases",
    storage_version_hash="gqkMMb/YqFM=",
)
DEPLOYMENT = Kind(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    singular="deployment",
    definition="io.k8s.api.apps.v1.Deployment",
    short_names=("deploy",),
    categories=("all",),
    storage="deployments",
    storage_version_hash="8aSe+NMegvE=",
    subresources=(_SCALE, _status("Deployment")),
)
REPLICA_SET = Kind(
    group="apps",
    version="v1",
    kind="ReplicaSet",
    plural="replicasets",
    singular="replicaset",
    definition="io.k8s.api.apps.v1.ReplicaSet",
    short_names=("rs",),
    categories=("all",),
    storage="replicasets",
    storage_version_hash="P1RzHs8/mWQ=",
    subresources=(_SCALE, _status("ReplicaSet")),
)

KINDS: tuple[Kind, ...] = (
    CONFIG_MAP,
    EVENT,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    PERSISTENT_VOLUME,
    POD,
    SECRET,
    SERVICE_ACCOUNT,
    SERVICE,
    DEPLOYMENT,
    REPLICA_SET,
    LEASE,
    EVENTS_EVENT,
    STORAGE_CLASS,
    RUNTIME_CLASS,
)

_BY_KIND = {(row.group, row.version, row.kind): row for row in KINDS}
_BY_PLURAL = {(row.group, row.version, row.plural): row for row in KINDS}


def by_kind(group: str, version: str, kind: str) -> Kind | None:
    """Find a row by group, version and kind."""
    return _BY_KIND.get((group, version, kind))


def by_api_version(api_version: str, kind: str) -> Kind | None:
    """Find a row by what a manifest says: apiVersion and kind."""
    return _BY_KIND.get((*split_api_version(api_version), kind))


def by_plural(group: str, version: str, plural: str) -> Kind | None:
    """Find a row by what a URL says: group, version and resource."""
    return _BY_PLURAL.get((group, version, plural))


def split_api_version(api_version: str) -> tuple[str, str]:
    """Split `apps/v1` into ("apps", "v1") and `v1` into ("", "v1")."""
    group, _, version = api_version.rpartition("/")
    return group, version


def group_versions() -> list[tuple[str, str]]:
    """Return every served (group, version), the core group first, in table order."""
    return list(dict.fromkeys((row.group, row.version) for row in sorted(KINDS, key=lambda row: row.group != "")))


def path(row: Kind, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Return the URL path of a kind over all namespaces, of one namespace's objects, an object, a subresource."""
    parts = ["/apis", row.group, row.version] if row.group else ["/api", row.version]
    if row.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts.append(row.plural)
    if name:
        parts.append(name)
        if subresource:
            parts.append(subresource)
    return "/".join(parts)
