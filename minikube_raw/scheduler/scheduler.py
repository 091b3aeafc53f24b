"""Gives every pod without a node one: watch ⇒ queue → decide → assume → bind.

A pod counts against its node from the moment of the decision, while the bind is still under way; a bind that fails is
forgotten and the pod tried again. The truth is in the API server alone, so a restart neither loses a pod nor binds one
twice: a second bind is refused there.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any

from minikube_raw.api.core import Node, Pod
from minikube_raw.api.meta import condition
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock, SystemClock, timestamp
from minikube_raw.client.events import NORMAL, WARNING, EventRecorder, reference
from minikube_raw.client.informer import Informers
from minikube_raw.client.resources import NODES, PODS
from minikube_raw.client.rest import Client, PatchType
from minikube_raw.scheduler import filters
from minikube_raw.scheduler.decide import Decision, Unschedulable, decide, refuse_everywhere
from minikube_raw.scheduler.podinfo import PodInfo, pod_info
from minikube_raw.scheduler.queue import QueuedPod, SchedulingQueue
from minikube_raw.scheduler.snapshot import NodeInfo, Snapshot
from minikube_raw.scheduler.volumefilter import VOLUME_BINDING, PodVolumes, Refused
from minikube_raw.scheduler.volumes import VolumeBinding

log = logging.getLogger(__name__)

DEFAULT_NAME = "default-scheduler"
_BINDS_AT_ONCE = 64
# Decisions are made without a pause for so long at most; then requests and watches get their turn.
_SLICE_SECONDS = 0.004


class Scheduler:
    """Schedules the pods whose spec.schedulerName is `name`. `run` works until cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        *,
        name: str = DEFAULT_NAME,
        clock: Clock | None = None,
        seed: int | None = None,
    ) -> None:
        self.name = name
        self._client = client
        self._clock: Clock = clock or SystemClock()
        self._pods = informers.of(PODS)
        self._nodes = informers.of(NODES)
        self._snapshot = Snapshot()
        self._queue = SchedulingQueue(self._clock)
        self._recorder = EventRecorder(client, name, clock=self._clock)
        self._rng = random.Random(seed)
        self._start = 0
        self._assumed: dict[str, str] = {}
        self._binds = asyncio.Semaphore(_BINDS_AT_ONCE)
        self._volumes = VolumeBinding(client, informers, self._clock, self._queue.changed)

    async def run(self) -> None:
        """Schedule until cancelled. The informers are run by whoever made them."""
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)
        await self._nodes.wait_synced()
        await self._pods.wait_synced()
        await self._volumes.start()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recorder.run())
            pause_at = time.monotonic() + _SLICE_SECONDS
            while True:
                entry = await self._queue.pop()
                await self._binds.acquire()
                self._schedule(entry, tasks)
                if time.monotonic() > pause_at:
                    await asyncio.sleep(0)
                    pause_at = time.monotonic() + _SLICE_SECONDS

    def _schedule(self, entry: QueuedPod, tasks: asyncio.TaskGroup) -> None:
        """Decide, and hand the slow half (bind, or condition) to a task that gives the bind's slot back."""
        nodes = self._snapshot.nodes
        decision, wish = self._decide(entry.info, nodes)
        self._start = (self._start + decision.examined) % max(len(nodes), 1)
        if decision.node is not None:
            self._snapshot.add_pod(entry.info, decision.node)
            self._assumed[entry.info.uid] = decision.node
            place = self._snapshot.node(decision.node)
            if wish is not None and wish.delayed and place is not None:
                self._volumes.assume(entry.info, wish, place)
                tasks.create_task(self._bind_volumes_first(entry, place))
            else:
                tasks.create_task(self._bind(entry, decision.node))
        elif decision.unschedulable is not None:
            self._queue.put_back(entry, decision.unschedulable.plugins)
            tasks.create_task(self._refuse(entry.info, decision.unschedulable))

    def _decide(self, pod: PodInfo, nodes: list[NodeInfo]) -> tuple[Decision, PodVolumes | None]:
        if not pod.claims:
            return decide(pod, nodes, start=self._start, rng=self._rng), None
        try:
            wish = self._volumes.wish(pod)
        except Refused as refused:
            return Decision(None, refuse_everywhere(str(refused), VOLUME_BINDING, len(nodes)), 0), None
        return decide(pod, nodes, start=self._start, rng=self._rng, last=self._volumes.check(wish)), wish

    async def _bind_volumes_first(self, entry: QueuedPod, place: NodeInfo) -> None:
        """Bind once the pod's volumes are there; others get the bind's slot meanwhile, for making a volume may take long."""
        self._binds.release()
        try:
            await self._volumes.bind(entry.info, place)
        except Exception as error:
            # The top of a task: without its volumes the pod cannot have the node, and is tried again.
            self._forget(entry, place.name, error, 'running PreBind plugin "VolumeBinding"')
            return
        finally:
            self._volumes.forget(entry.info.uid)
        await self._binds.acquire()
        await self._bind(entry, place.name)

    async def _bind(self, entry: QueuedPod, node: str) -> None:
        pod = entry.info
        try:
            await self._client.bind(PODS, pod.name, pod.namespace, pod.uid, node)
        except Exception as error:
            # The top of a task: whatever went wrong with this bind, its room is free again and all others go on.
            self._forget(entry, node, error, "running Bind plugin")
        else:
            self._queue.remove(pod.uid)
            message = f"Successfully assigned {pod.namespace}/{pod.name} to {node}"
            self._record(pod, NORMAL, "Scheduled", message)
        finally:
            self._binds.release()

    def _forget(self, entry: QueuedPod, node: str, error: Exception, doing: str) -> None:
        """Undo an assumption, unless the watch has confirmed it: then the bind worked and only its answer was lost."""
        pod = entry.info
        if self._assumed.pop(pod.uid, None) is None:
            return
        self._snapshot.remove_pod(pod.uid)
        if isinstance(error, StatusError) and error.code == 404 and self._pods.get(pod.key) is None:
            self._queue.remove(pod.uid)
            return
        log.info("binding %s to %s failed: %s", pod.key, node, error)
        self._record(pod, WARNING, "FailedScheduling", f"{doing}: {error}")
        self._queue.put_back(entry, None)

    async def _refuse(self, pod: PodInfo, why: Unschedulable) -> None:
        try:
            self._record(pod, WARNING, "FailedScheduling", why.message)
            current = self._pods.get(pod.key)
            if current is not None and current.metadata.uid == pod.uid:
                await self._set_condition(pod, current, why)
        except Exception as error:
            # The top of a task; the reason is written again at the next attempt.
            log.info("condition of %s not written: %s", pod.key, error)
        finally:
            self._binds.release()

    async def _set_condition(self, pod: PodInfo, current: Pod, why: Unschedulable) -> None:
        """Write PodScheduled=False with the reason per node, if it does not say so already."""
        before = condition(current.status.conditions, "PodScheduled")
        if before is not None and (before.status, before.message) == ("False", why.message):
            return
        changed = before is None or before.status != "False"
        body: dict[str, Any] = {
            "type": "PodScheduled",
            "status": "False",
            "observedGeneration": pod.generation,
            "lastTransitionTime": timestamp(self._clock.now()) if changed else before and before.last_transition_time,
            "reason": "Unschedulable",
            "message": why.message,
        }
        patch = {"metadata": {"uid": pod.uid}, "status": {"conditions": [body]}}
        await self._client.patch(PODS, pod.name, patch, pod.namespace, kind=PatchType.STRATEGIC, subresource="status")

    def _record(self, pod: PodInfo, type_: str, reason: str, message: str) -> None:
        view = self._pods.get(pod.key)
        if view is not None:
            self._recorder.event(reference(PODS, view), type_, reason, message)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new if new is not None else old
        if pod is None:
            return
        if old is not None and old.metadata.uid != pod.metadata.uid:
            # One object was replaced by another of the same name while nobody watched.
            self._pod_changed(old, None)
        uid = pod.metadata.uid
        if new is None or new.status.phase in ("Succeeded", "Failed"):
            self._gone(uid)
        elif new.spec.node_name:
            self._placed(old, new)
        elif self._is_ours(new):
            self._wants_node(new)
        else:
            self._queue.remove(uid)

    def _is_ours(self, pod: Pod) -> bool:
        spec = pod.spec
        waits = pod.metadata.deletion_timestamp is None and not spec.scheduling_gates
        return waits and (spec.scheduler_name or DEFAULT_NAME) == self.name

    def _wants_node(self, pod: Pod) -> None:
        if pod.metadata.uid in self._assumed:
            return
        try:
            self._queue.add(pod_info(pod))
        except ValueError as error:
            # Older objects may hold what validation refuses today; one of them must not stop the others.
            log.warning("pod %s/%s cannot be scheduled: %s", pod.metadata.namespace, pod.metadata.name, error)

    def _placed(self, old: Pod | None, new: Pod) -> None:
        uid = new.metadata.uid
        self._queue.remove(uid)
        self._assumed.pop(uid, None)
        if old is not None and old.spec == new.spec and old.metadata.labels == new.metadata.labels:
            return
        try:
            self._snapshot.add_pod(pod_info(new), new.spec.node_name)
        except ValueError as error:
            log.warning("pod %s/%s cannot be counted: %s", new.metadata.namespace, new.metadata.name, error)

    def _gone(self, uid: str) -> None:
        self._queue.remove(uid)
        self._assumed.pop(uid, None)
        if self._snapshot.remove_pod(uid):
            self._queue.changed((filters.NODE_RESOURCES_FIT, filters.NODE_PORTS))

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            if old is not None:
                self._snapshot.remove_node(old.metadata.name)
            return
        known = self._snapshot.node(new.metadata.name)
        before = _schedulable_side(known) if known is not None and known.known else None
        self._snapshot.set_node(new)
        if before is None:
            self._queue.changed(None)
            return
        known = self._snapshot.node(new.metadata.name)
        after = _schedulable_side(known) if known is not None else before
        helped = {plugin for plugin, value in after.items() if before[plugin] != value}
        if helped:
            self._queue.changed(helped)


def _schedulable_side(node: NodeInfo) -> dict[str, Any]:
    """Return what each filter looks at, to tell a heartbeat from a change that may let pods in."""
    return {
        filters.NODE_UNSCHEDULABLE: node.unschedulable,
        filters.TAINT_TOLERATION: node.taints,
        filters.NODE_AFFINITY: node.labels,
        filters.NODE_RESOURCES_FIT: node.allocatable,
    }
