"""The taints that say of a node what its conditions say, and whether pods stand them. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from minikube_raw.api.core import Node, Taint, Toleration
from minikube_raw.api.meta import condition
from minikube_raw.api.tolerations import stands
from minikube_raw.client.clock import timestamp

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

# Condition type, the status that is bad, and the taint that follows (node_lifecycle_controller.go, v1.36).
_BY_CONDITION = (
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
)
_MANAGED = frozenset({NOT_READY, UNREACHABLE, UNSCHEDULABLE, *(key for _, _, key in _BY_CONDITION)})

Wish = tuple[str, str]


def wished_taints(node: Node) -> list[Wish]:
    """Return (key, effect) of the taints that conditions and spec.unschedulable call for."""
    wished: list[Wish] = []
    ready = condition(node.status.conditions, "Ready")
    if ready is not None and ready.status != "True":
        key = NOT_READY if ready.status == "False" else UNREACHABLE
        wished += [(key, "NoSchedule"), (key, "NoExecute")]
    elif ready is None:
        wished.append((NOT_READY, "NoSchedule"))
    for kind, bad, key in _BY_CONDITION:
        found = condition(node.status.conditions, kind)
        if found is not None and found.status == bad:
            wished.append((key, "NoSchedule"))
    if node.spec.unschedulable:
        wished.append((UNSCHEDULABLE, "NoSchedule"))
    return wished


def reconciled(node: Node, now: float) -> tuple[Taint, ...]:
    """Return the taints the node should have: others' untouched, ours as wished, those that stay with their first time."""
    wished = wished_taints(node)
    kept = tuple(
        taint for taint in node.spec.taints if taint.key not in _MANAGED or (taint.key, taint.effect) in wished
    )
    present = {(taint.key, taint.effect) for taint in kept}
    added = tuple(
        Taint(key=key, effect=effect, time_added=timestamp(now))
        for key, effect in wished
        if (key, effect) not in present
    )
    return kept + added


def tolerated_for(tolerations: Iterable[Toleration], taint: Taint, override: float | None = None) -> float | None:
    """Return for how many seconds a NoExecute taint is stood: 0 not at all, None for ever.

    `override` replaces the pod's own time for nodes that are unreachable or not ready.
    """
    matching = [toleration for toleration in tolerations if stands(toleration, taint)]
    if not matching:
        return 0.0
    limited = [each.toleration_seconds for each in matching if each.toleration_seconds is not None]
    if not limited:
        return None
    seconds = float(max(min(limited), 0))
    if override is not None and taint.key in (NOT_READY, UNREACHABLE):
        return min(seconds, override)
    return seconds
