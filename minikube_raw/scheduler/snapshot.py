"""The cluster as the scheduler believes it to be: nodes with what is left on them, kept up to date by increments.

Pods count from the moment they are assumed to be bound; the watch confirms them later. Filters and scores only read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from minikube_raw.api.core import Node, Taint
from minikube_raw.scheduler.podinfo import Amounts, HostPort, PodInfo, amounts

K = TypeVar("K")
PODS = "pods"
_WILDCARD = "0.0.0.0"


class NodeInfo:
    """A node and the pods that count against it. `known` is False while only pods speak of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known = False
        self.labels: Mapping[str, str] = {}
        self.taints: tuple[Taint, ...] = ()
        self.unschedulable = False
        self.allocatable: Amounts = {}
        self.images: dict[str, int] = {}
        self.pods: dict[str, PodInfo] = {}
        self.requested: Amounts = {}
        self.scored_cpu = 0
        self.scored_memory = 0
        self.ports: dict[HostPort, int] = {}
        self.owners: dict[str, int] = {}

    def set_node(self, node: Node) -> None:
        """Take over what the Node object says."""
        self.known = True
        self.labels = node.metadata.labels
        self.taints = node.spec.taints
        self.unschedulable = node.spec.unschedulable
        self.allocatable = amounts(node.status.allocatable or node.status.capacity)
        self.images = {name: image.size_bytes for image in node.status.images for name in image.names}

    def add(self, pod: PodInfo) -> None:
        """Count a pod, once."""
        self.remove(pod.uid)
        self.pods[pod.uid] = pod
        self._count(pod, 1)

    def remove(self, uid: str) -> bool:
        """Stop counting a pod; whether it was counted."""
        pod = self.pods.pop(uid, None)
        if pod is not None:
            self._count(pod, -1)
        return pod is not None

    def conflicts(self, port: HostPort) -> bool:
        """Whether a pod here holds that host port on an overlapping address."""
        if port in self.ports:
            return True
        if port.ip == _WILDCARD:
            return any(taken.port == port.port and taken.protocol == port.protocol for taken in self.ports)
        return port._replace(ip=_WILDCARD) in self.ports

    def _count(self, pod: PodInfo, sign: int) -> None:
        for name, amount in pod.requests.items():
            self.requested[name] = self.requested.get(name, 0) + sign * amount
        self.scored_cpu += sign * pod.scored_cpu
        self.scored_memory += sign * pod.scored_memory
        for port in pod.ports:
            _tally(self.ports, port, sign)
        if pod.owner:
            _tally(self.owners, pod.owner, sign)


class Snapshot:
    """All nodes by name, and where each counted pod counts."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._places: dict[str, str] = {}
        self._listed: list[NodeInfo] | None = None

    @property
    def nodes(self) -> list[NodeInfo]:
        """Return the nodes there are Node objects of, in a stable order."""
        if self._listed is None:
            self._listed = [node for node in self._nodes.values() if node.known]
        return self._listed

    def node(self, name: str) -> NodeInfo | None:
        """Return the node of that name."""
        return self._nodes.get(name)

    def set_node(self, node: Node) -> None:
        """Add a node or take over its changes."""
        name = node.metadata.name
        info = self._nodes.setdefault(name, NodeInfo(name))
        if not info.known:
            self._listed = None
        info.set_node(node)

    def remove_node(self, name: str) -> None:
        """Forget a node; the pods on it keep counting should it come back."""
        if name in self._nodes:
            self._nodes[name].known = False
            self._listed = None
            self._drop_if_empty(name)

    def add_pod(self, pod: PodInfo, node_name: str) -> None:
        """Count `pod` on a node; where it counted before it counts no more."""
        if self._places.get(pod.uid) not in (None, node_name):
            self.remove_pod(pod.uid)
        self._nodes.setdefault(node_name, NodeInfo(node_name)).add(pod)
        self._places[pod.uid] = node_name

    def remove_pod(self, uid: str) -> bool:
        """Stop counting a pod; whether it was counted."""
        name = self._places.pop(uid, None)
        if name is None:
            return False
        self._nodes[name].remove(uid)
        self._drop_if_empty(name)
        return True

    def _drop_if_empty(self, name: str) -> None:
        node = self._nodes[name]
        if not node.known and not node.pods:
            del self._nodes[name]


def _tally(counts: dict[K, int], key: K, by: int) -> None:
    counts[key] = counts.get(key, 0) + by
    if not counts[key]:
        del counts[key]
