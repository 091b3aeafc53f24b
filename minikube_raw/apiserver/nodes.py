"""What a node's agent may do: Kubernetes' node authorizer (authorization) and the NodeRestriction plugin (admission).

The agent is kubelet, proxy and overlay in one, so it also reads every Node, Service and EndpointSlice, which in
Kubernetes kube-proxy and the network add-on do under identities of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minikube_raw.api import status
from minikube_raw.api.storage import LOCAL_NODE

from .auth import ALLOW, Decision, User
from .routes import RequestInfo

LEASE_NAMESPACE = "kube-node-lease"
# Labels a node may set on itself (NodeRestriction; api/core/v1 well_known_labels.go); others under these domains it may not.
_OWN_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
_OWN_LABEL_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_READ = frozenset({"get", "list", "watch"})
_CLUSTER_READS = frozenset({"nodes", "services", "endpoints", "endpointslices", "runtimeclasses", "csidrivers"})

# (namespace, resource, name) referenced by a pod on the node? Asked for Secrets, ConfigMaps, ServiceAccounts, volumes, and pods.
Related = Callable[[str, str, str, str], bool]


class NodeAuthorizer:
    """Decides for users of system:nodes. `related(node, resource, namespace, name)` knows which objects a node's pods use."""

    def __init__(self, related: Related) -> None:
        self._related = related

    def __call__(self, user: User, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        """Decide by a rule per resource; what has no rule is refused."""
        rule = _RULES.get((info.group, info.resource))
        if rule is not None:
            return rule(self, user.node_name, info, query)
        return Decision(info.resource in _CLUSTER_READS and info.verb in _READ)

    def _nodes(self, node: str, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        return Decision(info.verb in _READ or info.verb in ("create", "update", "patch"))

    def _pods(self, node: str, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        if info.verb in ("list", "watch"):
            if f"spec.nodeName={node}" in ",".join(query.get("fieldSelector", ())).split(","):
                return ALLOW
            return Decision(False, "can only list/watch pods with spec.nodeName field selector")
        if info.verb == "get" and not info.subresource:
            return self._when_related(node, info)
        if info.subresource in ("status", "eviction"):
            return Decision(info.verb in ("update", "patch", "create"))
        return Decision(not info.subresource and info.verb in ("create", "delete"))

    def _referenced(self, node: str, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        if info.verb not in _READ or info.subresource:
            return Decision(False, "can only read resources of this type")
        name = info.name or _named_by_selector(query)
        if not name:
            return Decision(False, "No Object name found")
        return self._when_related(node, info, name)

    def _when_related(self, node: str, info: RequestInfo, name: str = "") -> Decision:
        if self._related(node, info.resource, info.namespace, name or info.name):
            return ALLOW
        return Decision(False, f"no relationship found between node '{node}' and this object")

    def _leases(self, node: str, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        if info.namespace != LEASE_NAMESPACE:
            return Decision(False, f'can only access leases in the "{LEASE_NAMESPACE}" system namespace')
        if info.verb not in ("get", "create", "update", "patch", "delete"):
            return Decision(False, "can only get, create, update, patch, or delete a node lease")
        if info.verb != "create" and info.name != node:
            return Decision(False, "can only access node lease with the same name as the requesting node")
        return ALLOW

    def _volumes(self, node: str, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        if info.verb != "get":
            return Decision(False, "can only get individual resources of this type")
        if info.subresource:
            return Decision(False, "cannot get subresource")
        return self._when_related(node, info)

    def _persistent_volumes(self, node: str, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        if info.verb in ("list", "watch"):
            if f"{LOCAL_NODE}={node}" in ",".join(query.get("labelSelector", ())).split(","):
                return ALLOW
            return Decision(False, f"can only list/watch persistentvolumes with {LOCAL_NODE} label selector")
        if info.verb == "patch" and not info.subresource:
            return ALLOW  # admission says which, and what of them
        return self._volumes(node, info, query)

    def _accounts(self, node: str, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        if info.verb == "get" and not info.subresource:
            return self._referenced(node, info, query)
        if info.verb != "create" or not info.name:
            return Decision(False, "can only create tokens for individual service accounts")
        if info.subresource != "token":
            return Decision(False, "can only create token subresource of serviceaccount")
        return self._when_related(node, info)

    def _read_only(self, node: str, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        return Decision(info.verb in ("get", "list", "watch"))

    def _reviews(self, node: str, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        return Decision(info.verb == "create")

    def _events(self, node: str, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        return Decision(info.verb in ("create", "update", "patch"))


_RULES: dict[tuple[str, str], Callable[..., Decision]] = {
    ("", "nodes"): NodeAuthorizer._nodes,
    ("", "pods"): NodeAuthorizer._pods,
    ("", "secrets"): NodeAuthorizer._referenced,
    ("", "configmaps"): NodeAuthorizer._referenced,
    # Kubernetes' kubelet asks for a claim again and again; ours follows the one it waits for, as it does with Secrets.
    ("", "persistentvolumeclaims"): NodeAuthorizer._referenced,
    ("", "persistentvolumes"): NodeAuthorizer._persistent_volumes,
    ("", "serviceaccounts"): NodeAuthorizer._accounts,
    # How a kubelet asks whether somebody may use its own API.
    ("node.k8s.io", "runtimeclasses"): NodeAuthorizer._read_only,
    ("authentication.k8s.io", "tokenreviews"): NodeAuthorizer._reviews,
    ("authorization.k8s.io", "subjectaccessreviews"): NodeAuthorizer._reviews,
    ("authorization.k8s.io", "localsubjectaccessreviews"): NodeAuthorizer._reviews,
    ("", "events"): NodeAuthorizer._events,
    ("events.k8s.io", "events"): NodeAuthorizer._events,
    ("coordination.k8s.io", "leases"): NodeAuthorizer._leases,
}


def _named_by_selector(query: Mapping[str, tuple[str, ...]]) -> str:
    """Return the name a watch of one object selects by metadata.name=…"""
    selectors = ",".join(query.get("fieldSelector", ())).split(",")
    return next((s.removeprefix("metadata.name=") for s in selectors if s.startswith("metadata.name=")), "")


def admit(node: str, info: RequestInfo, new: dict[str, Any] | None, old: dict[str, Any] | None) -> None:
    """NodeRestriction: refuse (403) what a node may ask for in general, but not for this object."""
    if info.resource == "pods":
        _admit_pod(node, info, new, old)
    elif info.resource == "nodes":
        _admit_node(node, info, new, old)
    elif info.resource == "persistentvolumes":
        _admit_volume(node, info, new, old)
    elif info.resource == "leases":
        name = (new or old or {})["metadata"].get("name", "")
        if name != node:
            text = "can only access node lease with the same name as the requesting node"
            raise status.forbidden(info.group, info.resource, name, text)


def _admit_volume(node: str, info: RequestInfo, new: dict[str, Any] | None, old: dict[str, Any] | None) -> None:
    """Let a node take finalizers from the volumes that were made from its directories, and nothing else."""
    held, wish = old or {"metadata": {}}, new or {"metadata": {}}
    mine = (held["metadata"].get("labels") or {}).get(LOCAL_NODE) == node
    if not mine or _but_finalizers(wish) != _but_finalizers(held):
        text = f'node "{node}" can only change the finalizers of volumes that were made from its own directories'
        raise status.forbidden("", info.resource, info.name, text)


def _but_finalizers(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _TAKEN_CARE_OF}
    return {**obj, "metadata": metadata}


_TAKEN_CARE_OF = frozenset({"finalizers", "managedFields", "resourceVersion"})


def _admit_pod(node: str, info: RequestInfo, new: dict[str, Any] | None, old: dict[str, Any] | None) -> None:
    if info.verb == "create" and not info.subresource and new is not None:
        _admit_mirror_pod(node, new)
        return
    held = old or {}
    if held.get("spec", {}).get("nodeName") != node:
        what = "update pod status for pods" if info.subresource == "status" else f"{info.verb} pods"
        text = f'node "{node}" can only {what} with spec.nodeName set to itself'
        raise status.forbidden("", "pods", info.name, text)


def _admit_mirror_pod(node: str, pod: dict[str, Any]) -> None:
    name = pod["metadata"].get("name", "")
    if "kubernetes.io/config.mirror" not in pod["metadata"].get("annotations", {}):
        text = f'pod does not have "kubernetes.io/config.mirror" annotation, node "{node}" can only create mirror pods'
        raise status.forbidden("", "pods", name, text)
    owners = pod["metadata"].get("ownerReferences", [])
    if [(o.get("kind"), o.get("name")) for o in owners] != [("Node", node)]:
        text = f'node "{node}" can only create pods with an owner reference set to itself'
        raise status.forbidden("", "pods", name, text)


def _admit_node(node: str, info: RequestInfo, new: dict[str, Any] | None, old: dict[str, Any] | None) -> None:
    name = info.name or (new or {}).get("metadata", {}).get("name", "")
    if name != node:
        text = f'node "{node}" is not allowed to modify node "{name}"'
        raise status.forbidden("", "nodes", name, text)
    if new is None:
        return
    held = old or {}
    if old is not None and new.get("spec", {}).get("taints", []) != held.get("spec", {}).get("taints", []):
        raise status.forbidden("", "nodes", name, f'node "{node}" is not allowed to modify taints')
    changed = _changed_labels(new["metadata"].get("labels", {}), held.get("metadata", {}).get("labels", {}))
    if refused := sorted(label for label in changed if not _may_label(label)):
        raise status.forbidden("", "nodes", name, f"is not allowed to modify labels: {', '.join(refused)}")


def _changed_labels(new: dict[str, str], old: dict[str, str]) -> Iterable[str]:
    return {key for key in new.keys() | old.keys() if new.get(key) != old.get(key)}


def _may_label(label: str) -> bool:
    domain, slash, _ = label.partition("/")
    if not slash:
        return True
    if domain == "node-restriction.kubernetes.io" or domain.endswith(".node-restriction.kubernetes.io"):
        return False
    if label in _OWN_LABELS or any(domain == own or domain.endswith("." + own) for own in _OWN_LABEL_DOMAINS):
        return True
    return not (domain in ("kubernetes.io", "k8s.io") or domain.endswith((".kubernetes.io", ".k8s.io")))
