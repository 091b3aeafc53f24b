"""Removes pods that nobody else will: of nodes that are gone, of nodes that are dead, and long ended ones.

A kubelet normally removes its pods itself; these have none that could. (pkg/controller/podgc, v1.36)
"""

from __future__ import annotations

from minikube_raw.api.core import Node, Pod
from minikube_raw.api.meta import condition
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import seconds_of, timestamp
from minikube_raw.client.informer import key_of
from minikube_raw.client.resources import NODES, PODS
from minikube_raw.client.rest import PatchType
from minikube_raw.controllers.controller import Context, Controller
from minikube_raw.controllers.nodelifecycle import BY_NODE, node_name
from minikube_raw.controllers.pods import is_terminal

_ENDED = "ended"


class PodGCController:
    """Collects stranded pods; `run` until cancelled. Keys: "node/NAME", "pod/NAMESPACE/NAME", "ended"."""

    def __init__(self, context: Context) -> None:
        self._client, self._clock, self._options = context.client, context.clock, context.options
        self._nodes = context.informers.of(NODES)
        self._pods = context.informers.of(PODS)
        self._pods.add_index(BY_NODE, node_name)
        self._pods.add_index(_ENDED, lambda pod: (_ENDED,) if is_terminal(pod) else ())
        self._controller = Controller("podgc", self._reconcile, context, workers=2)
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, key: str) -> float | None:
        kind, _, name = key.partition("/")
        if kind == "node":
            return await self._collect_orphans(name)
        if kind == "pod":
            return await self._collect_terminating(name)
        return await self._collect_ended()

    async def _collect_orphans(self, name: str) -> float | None:
        """Remove the pods of a Node object that does not exist, asked of the server itself, not of our copy."""
        pods = self._pods.by_index(BY_NODE, name)
        if not pods or self._nodes.get(name) is not None or await self._exists(name):
            return None
        for pod in list(pods):
            await self._fail(pod, "PodGC: node no longer exists")
            await self._remove(pod)
        return None

    async def _exists(self, name: str) -> bool:
        try:
            await self._client.get(NODES, name)
        except StatusError as error:
            if error.code == 404:
                return False
            raise
        return True

    async def _collect_terminating(self, key: str) -> float | None:
        """Remove a pod that should have ended by now and has no kubelet that could say so."""
        pod = self._pods.get(key)
        if pod is None or not self._has_no_kubelet(pod):
            return None
        left = (seconds_of(pod.metadata.deletion_timestamp) or 0.0) - self._clock.now()
        if left > 0:
            # Never much longer than the pod's own grace period, whatever became of the host's date.
            return min(left, float(pod.metadata.deletion_grace_period_seconds or 0) + 1)
        if pod.spec.node_name:
            await self._fail(pod, "PodGC: node is unreachable")
        await self._remove(pod)
        return None

    def _has_no_kubelet(self, pod: Pod) -> bool:
        if pod.metadata.deletion_timestamp is None:
            return False
        if not pod.spec.node_name:
            return True
        node = self._nodes.get(pod.spec.node_name)
        owner = pod.metadata.controller
        # An ordinal of a StatefulSet may run once only, and nobody can say that it does not still run over there.
        unique = owner is not None and owner.kind == "StatefulSet"
        return self._options.force_delete_on_dead_nodes and node is not None and _is_dead(node) and not unique

    async def _collect_ended(self) -> float | None:
        ended = self._pods.by_index(_ENDED, _ENDED)
        excess = len(ended) - self._options.terminated_pods_kept
        if excess > 0:
            oldest = sorted(ended, key=lambda pod: pod.metadata.creation_timestamp or "")
            for pod in oldest[:excess]:
                await self._remove(pod)
        return None

    async def _fail(self, pod: Pod, message: str) -> None:
        """Say before it goes that it did not end well, for whoever counts failures."""
        if is_terminal(pod):
            return
        metadata = pod.metadata
        entry = {
            "type": "DisruptionTarget",
            "status": "True",
            "observedGeneration": metadata.generation,
            "lastTransitionTime": timestamp(self._clock.now()),
            "reason": "DeletionByPodGC",
            "message": message,
        }
        body = {"metadata": {"uid": metadata.uid}, "status": {"phase": "Failed", "conditions": [entry]}}
        try:
            await self._client.patch(
                PODS, metadata.name, body, metadata.namespace, kind=PatchType.STRATEGIC, subresource="status"
            )
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    async def _remove(self, pod: Pod) -> None:
        metadata = pod.metadata
        try:
            await self._client.delete(PODS, metadata.name, metadata.namespace, grace_period=0, uid=metadata.uid)
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            if old is not None:
                self._expect_orphans(old.metadata.name)
        elif _is_dead(new) and (old is None or not _is_dead(old)):
            for pod in self._pods.by_index(BY_NODE, new.metadata.name):
                self._pod_changed(None, pod)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is None:
            return
        if new.metadata.deletion_timestamp is not None and self._has_no_kubelet(new):
            self._controller.queue.add(f"pod/{key_of(new)}")
        if is_terminal(new) and (old is None or not is_terminal(old)):
            if len(self._pods.by_index(_ENDED, _ENDED)) > self._options.terminated_pods_kept:
                self._controller.queue.add_after(_ENDED, self._options.gc_period)
        elif old is None and new.spec.node_name and self._nodes.get(new.spec.node_name) is None:
            self._expect_orphans(new.spec.node_name)

    def _expect_orphans(self, name: str) -> None:
        self._controller.queue.add_after(f"node/{name}", self._options.orphan_pods_seconds)


def _is_dead(node: Node) -> bool:
    ready = condition(node.status.conditions, "Ready")
    return ready is not None and ready.status == "Unknown"
