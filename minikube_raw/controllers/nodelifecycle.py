"""The node lifecycle controller: a node whose heartbeats stop is Unknown, tainted, and its pods are not ready any more.

A heartbeat is a change of the node's Lease (or of its Ready condition's heartbeat time) as seen here, on our monotonic
clock: the clocks of nodes do not matter. Who leaves a tainted node, and when, is `tainteviction`'s business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from minikube_raw.api import meta
from minikube_raw.api.coordination import Lease
from minikube_raw.api.core import Node, Pod
from minikube_raw.api.meta import Condition, condition
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import timestamp
from minikube_raw.client.events import NORMAL, WARNING, reference
from minikube_raw.client.resources import LEASES, NODES, PODS
from minikube_raw.client.rest import PatchType
from minikube_raw.controllers.controller import Context, Controller
from minikube_raw.controllers.nodetaints import reconciled
from minikube_raw.controllers.pods import is_ready

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
BY_NODE = "node"
_WATCHED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
# A timer this late means that this process stood still; then it is we who missed heartbeats, not they who sent none.
_LATE_SECONDS = 5.0


def node_name(pod: Pod) -> Iterable[str]:
    """Index: the node a pod is on."""
    return (pod.spec.node_name,) if pod.spec.node_name else ()


class NodeLifecycleController:
    """Watches heartbeats; `run` until cancelled."""

    def __init__(self, context: Context) -> None:
        self._client, self._clock = context.client, context.clock
        self._grace = context.options.node_grace_period
        self._nodes = context.informers.of(NODES)
        self._pods = context.informers.of(PODS)
        self._pods.add_index(BY_NODE, node_name)
        self._recorder = context.recorder("node-controller")
        self._seen: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._controller = Controller("nodelifecycle", self._reconcile, context, workers=2)
        self._nodes.add_handler(self._node_changed)
        context.informers.of(LEASES).add_handler(self._lease_changed)
        self._pods.add_handler(self._pod_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, name: str) -> float | None:
        node = self._nodes.get(name)
        if node is None:
            return None
        left = self._grace - self._silence(name)
        if left <= 0:
            node = await self._mark_unknown(node)
        node = await self._sync_taints(node)
        if _ready_status(node) == "Unknown":
            await self._mark_pods_not_ready(node)
        if left <= 0:
            self._due.pop(name, None)
            return None
        self._due[name] = self._clock.monotonic() + left
        return left

    def _silence(self, name: str) -> float:
        """Return seconds since the last heartbeat."""
        now = self._clock.monotonic()
        if now - self._due.get(name, now) > _LATE_SECONDS:
            log.warning("looking at node %s %.0f s late: not counted against it", name, now - self._due[name])
            self._seen[name] = now
        return now - self._seen.setdefault(name, now)

    async def _mark_unknown(self, node: Node) -> Node:
        now = self._clock.now()
        unknown = [entry for entry in (_unknown(node, kind, now) for kind in _WATCHED) if entry is not None]
        if not unknown:
            return node
        was_ready = _ready_status(node) == "True"
        # The Lease may have been renewed between our look and this write: the precondition lets the kubelet win.
        metadata = {"resourceVersion": node.metadata.resource_version}
        body = {"metadata": metadata, "status": {"conditions": unknown}}
        node = await self._client.patch(NODES, node.metadata.name, body, kind=PatchType.STRATEGIC, subresource="status")
        if was_ready:
            name = node.metadata.name
            self._record(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        return node

    async def _sync_taints(self, node: Node) -> Node:
        wished = reconciled(node, self._clock.now())
        if wished == node.spec.taints:
            return node
        taints = [meta.to_dict(taint) for taint in wished] or None
        body = {"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}}
        return await self._client.patch(NODES, node.metadata.name, body)

    async def _mark_pods_not_ready(self, node: Node) -> None:
        ready = [pod for pod in self._pods.by_index(BY_NODE, node.metadata.name) if is_ready(pod)]
        await asyncio.gather(*(self._mark_pod_not_ready(pod) for pod in ready))

    async def _mark_pod_not_ready(self, pod: Pod) -> None:
        entry = {"type": "Ready", "status": "False", "lastTransitionTime": timestamp(self._clock.now())}
        metadata = pod.metadata
        body = {"metadata": {"uid": metadata.uid}, "status": {"conditions": [entry]}}
        try:
            await self._client.patch(
                PODS, metadata.name, body, metadata.namespace, kind=PatchType.STRATEGIC, subresource="status"
            )
        except StatusError as error:
            if error.code in (404, 409):
                return
            raise
        self._recorder.event(reference(PODS, pod), WARNING, "NodeNotReady", "Node is not ready")

    def _record(self, node: Node, reason: str, message: str) -> None:
        self._recorder.event(reference(NODES, node), NORMAL, reason, message)

    def _heard_from(self, name: str) -> None:
        self._seen[name] = self._clock.monotonic()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            if old is not None:
                name = old.metadata.name
                self._seen.pop(name, None)
                self._due.pop(name, None)
                self._record(old, "RemovingNode", f"Node {name} event: Removing Node {name} from Controller")
            return
        name = new.metadata.name
        if old is None:
            self._heard_from(name)
            self._record(new, "RegisteredNode", f"Node {name} event: Registered Node {name} in Controller")
        elif _heartbeat(old) != _heartbeat(new):
            self._heard_from(name)
        self._controller.queue.add(name)

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        if new is None or new.metadata.namespace != LEASE_NAMESPACE:
            return
        if old is None or old.spec.renew_time != new.spec.renew_time:
            name = new.metadata.name
            self._heard_from(name)
            if name not in self._due:
                self._controller.queue.add(name)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """A pod that turns ready on a node that is away was reported by a kubelet that has gone since."""
        if new is None or not new.spec.node_name or not is_ready(new):
            return
        node = self._nodes.get(new.spec.node_name)
        if node is not None and _ready_status(node) == "Unknown":
            self._controller.queue.add(node.metadata.name)


def _ready_status(node: Node) -> str:
    ready = condition(node.status.conditions, "Ready")
    return ready.status if ready is not None else ""


def _heartbeat(node: Node) -> str | None:
    ready = condition(node.status.conditions, "Ready")
    # Our own "Unknown" leaves the heartbeat time as it was, so it never counts as a sign of life.
    return ready.last_heartbeat_time if ready is not None else None


def _unknown(node: Node, kind: str, now: float) -> dict[str, Any] | None:
    found: Condition | None = condition(node.status.conditions, kind)
    if found is not None and found.status == "Unknown":
        return None
    entry = {"type": kind, "status": "Unknown", "lastTransitionTime": timestamp(now)}
    if found is None:
        never = {"reason": "NodeStatusNeverUpdated", "message": "Kubelet never posted node status."}
        return entry | never | {"lastHeartbeatTime": node.metadata.creation_timestamp}
    return entry | {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
