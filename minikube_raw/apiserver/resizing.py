"""Admission of a resize: what the pod's node could not give even if it were empty is refused at once (403, NodeCapacity).

Whether there is room beside the other pods is the kubelet's to say (PodResizePending, Deferred or Infeasible).
"""

from __future__ import annotations

from minikube_raw.api import status
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources import podparts
from minikube_raw.apiserver.resources.strategy import Object


class Resizing:
    """Looks at the nodes of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def check(self, pod: Object, wish: Object) -> None:
        """Raise 403 when the wish is more than the whole node has."""
        nodes = self._registry.core("nodes")
        entry = nodes.cache.entries.get(nodes.key("", pod["spec"].get("nodeName") or "-"))
        if entry is None:
            return
        allocatable = (decode(entry.value).get("status") or {}).get("allocatable") or {}
        short = podparts.impossible(wish, allocatable)
        if short is None:
            return
        name, asked, have = short
        text = f"node didn't have enough allocatable resources: {name}, requested: {asked}, allocatable: {have}"
        refused = status.forbidden("", "pods", pod["metadata"]["name"], text)
        details = status.Details(
            name=pod["metadata"]["name"], kind="pods", causes=[status.Cause(reason="NodeCapacity")]
        )
        raise status.StatusError(refused.code, refused.reason, refused.message, details)
