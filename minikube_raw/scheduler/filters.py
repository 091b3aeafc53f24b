"""Filters: may this pod run on this node? Pure functions in kube-scheduler's order, with its reasons word for word.

The first filter that says no speaks for the node. `resolvable` tells whether removing other pods could help, which is
what the message says about preemption (pkg/scheduler/framework/plugins, v1.36).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minikube_raw.api.core import Taint
from minikube_raw.api.tolerations import tolerates
from minikube_raw.scheduler.podinfo import PodInfo
from minikube_raw.scheduler.snapshot import PODS, NodeInfo

NODE_UNSCHEDULABLE = "NodeUnschedulable"
TAINT_TOLERATION = "TaintToleration"
NODE_AFFINITY = "NodeAffinity"
NODE_PORTS = "NodePorts"
NODE_RESOURCES_FIT = "NodeResourcesFit"

_UNSCHEDULABLE_TAINT = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


class Failure(NamedTuple):
    """Why a pod cannot run on a node: the filter that said no and its reasons."""

    plugin: str
    reasons: tuple[str, ...]
    resolvable: bool = False


def node_unschedulable(pod: PodInfo, node: NodeInfo) -> Failure | None:
    """Refuse cordoned nodes."""
    if node.unschedulable and not tolerates(pod.tolerations, _UNSCHEDULABLE_TAINT):
        return Failure(NODE_UNSCHEDULABLE, ("node(s) were unschedulable",))
    return None


def taint_toleration(pod: PodInfo, node: NodeInfo) -> Failure | None:
    """Refuse nodes with a NoSchedule or NoExecute taint that the pod does not stand."""
    for taint in node.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(pod.tolerations, taint):
            return Failure(TAINT_TOLERATION, ("node(s) had untolerated taint(s)",))
    return None


def node_affinity(pod: PodInfo, node: NodeInfo) -> Failure | None:
    """Refuse nodes outside the node selector and the required terms."""
    names = pod.affinity.names()
    if names is not None and node.name not in names:
        return Failure(NODE_AFFINITY, (f"node(s) didn't satisfy plugin(s) [{NODE_AFFINITY}]",))
    if pod.affinity.allows(node.name, node.labels):
        return None
    return Failure(NODE_AFFINITY, ("node(s) didn't match Pod's node affinity/selector",))


def node_ports(pod: PodInfo, node: NodeInfo) -> Failure | None:
    """Refuse nodes where a wanted host port is taken."""
    if any(node.conflicts(port) for port in pod.ports):
        return Failure(NODE_PORTS, ("node(s) didn't have free ports for the requested pod ports",), resolvable=True)
    return None


def node_resources_fit(pod: PodInfo, node: NodeInfo) -> Failure | None:
    """Refuse nodes without room: all that is short is named. More than the whole node is beyond any preemption."""
    reasons = []
    resolvable = True
    if len(node.pods) + 1 > node.allocatable.get(PODS, 0):
        reasons.append("Too many pods")
    for name, wanted in pod.requests.items():
        allocatable = node.allocatable.get(name, 0)
        if wanted > allocatable - node.requested.get(name, 0) and wanted > 0:
            reasons.append(f"Insufficient {name}")
            resolvable = resolvable and wanted <= allocatable
    return Failure(NODE_RESOURCES_FIT, tuple(reasons), resolvable) if reasons else None


FILTERS: tuple[Callable[[PodInfo, NodeInfo], Failure | None], ...] = (
    node_unschedulable,
    taint_toleration,
    node_affinity,
    node_ports,
    node_resources_fit,
)


def first_failure(pod: PodInfo, node: NodeInfo) -> Failure | None:
    """Return why the pod cannot run on the node; None when it can."""
    for check in FILTERS:
        failure = check(pod, node)
        if failure is not None:
            return failure
    return None
