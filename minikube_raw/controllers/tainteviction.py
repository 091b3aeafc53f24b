"""The taint eviction controller: pods leave a node with a NoExecute taint when their toleration runs out.

The time runs from when the taint was first seen here, so a corrected date evicts nobody. (pkg/controller/tainteviction)
"""

from __future__ import annotations

from minikube_raw.api.core import Node, Pod, Taint
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import timestamp
from minikube_raw.client.events import NORMAL, reference
from minikube_raw.client.informer import key_of
from minikube_raw.client.resources import NODES, PODS
from minikube_raw.client.rest import PatchType
from minikube_raw.controllers.controller import Context, Controller
from minikube_raw.controllers.nodelifecycle import BY_NODE, node_name
from minikube_raw.controllers.nodetaints import tolerated_for
from minikube_raw.controllers.pods import is_terminal

_REASON, _MESSAGE = "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"


class TaintEvictionController:
    """Evicts pods from tainted nodes; `run` until cancelled."""

    def __init__(self, context: Context) -> None:
        self._client, self._clock = context.client, context.clock
        self._override = context.options.eviction_seconds
        self._nodes = context.informers.of(NODES)
        self._pods = context.informers.of(PODS)
        self._pods.add_index(BY_NODE, node_name)
        self._recorder = context.recorder("taint-eviction-controller")
        self._since: dict[str, dict[tuple[str, str], float]] = {}
        self._marked: set[str] = set()
        self._controller = Controller("tainteviction", self._reconcile, context)
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, key: str) -> float | None:
        pod = self._pods.get(key)
        if pod is None or is_terminal(pod) or pod.metadata.deletion_timestamp is not None:
            self._marked.discard(key)
            return None
        left = self._seconds_left(pod)
        if left is None:
            if key in self._marked:
                self._marked.discard(key)
                self._record(pod, f"Cancelling deletion of Pod {key}")
            return None
        if left > 0:
            self._marked.add(key)
            return left
        await self._evict(key, pod)
        return None

    def _seconds_left(self, pod: Pod) -> float | None:
        """Return seconds until the pod must leave, None when it may stay."""
        node = self._nodes.get(pod.spec.node_name)
        if node is None:
            return None
        now = self._clock.monotonic()
        since = self._since.get(node.metadata.name, {})
        ends = []
        for taint in _no_execute(node):
            seconds = tolerated_for(pod.spec.tolerations, taint, self._override)
            if seconds is not None:
                ends.append(since.get((taint.key, taint.value), now) + seconds - now)
        return max(min(ends), 0.0) if ends else None

    async def _evict(self, key: str, pod: Pod) -> None:
        self._record(pod, f"Marking for deletion Pod {key}")
        metadata = pod.metadata
        entry = {
            "type": "DisruptionTarget",
            "status": "True",
            "observedGeneration": metadata.generation,
            "lastTransitionTime": timestamp(self._clock.now()),
            "reason": _REASON,
            "message": _MESSAGE,
        }
        body = {"metadata": {"uid": metadata.uid}, "status": {"conditions": [entry]}}
        try:
            await self._client.patch(
                PODS, metadata.name, body, metadata.namespace, kind=PatchType.STRATEGIC, subresource="status"
            )
            await self._client.delete(PODS, metadata.name, metadata.namespace, uid=metadata.uid)
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    def _record(self, pod: Pod, message: str) -> None:
        self._recorder.event(reference(PODS, pod), NORMAL, "TaintManagerEviction", message)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        before = _no_execute(old) if old is not None else []
        after = _no_execute(new) if new is not None else []
        view = new if new is not None else old
        if view is None or before == after:
            return
        name = view.metadata.name
        known, now = self._since.get(name, {}), self._clock.monotonic()
        self._since[name] = {(each.key, each.value): known.get((each.key, each.value), now) for each in after}
        if not after:
            del self._since[name]
        for pod in self._pods.by_index(BY_NODE, name):
            self._controller.queue.add(key_of(pod))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new if new is not None else old
        if pod is not None and pod.spec.node_name in self._since:
            self._controller.queue.add(key_of(pod))


def _no_execute(node: Node) -> list[Taint]:
    return [taint for taint in node.spec.taints if taint.effect == "NoExecute"]
