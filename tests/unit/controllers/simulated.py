"""Nodes without kernels, for tests of controllers: their pods run at once, end when asked to, and heartbeats can stop."""

from __future__ import annotations

from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock, timestamp
from minikube_raw.client.informer import Informers, key_of
from minikube_raw.client.leases import LeaseHolder
from minikube_raw.client.resources import NODES, PODS
from minikube_raw.client.rest import Client, PatchType
from minikube_raw.client.workqueue import WorkQueue

Body = dict[str, Any]


class Kubelets:
    """The agents of all simulated nodes. `broken` decides which pods never become ready."""

    def __init__(self, client: Client, informers: Informers, clock: Clock) -> None:
        self.alive: set[str] = set()
        self.broken = lambda pod: False
        self._client, self._clock = client, clock
        self._pods = informers.of(PODS)
        self._queue = WorkQueue(clock=clock)
        self._pods.add_handler(lambda old, new: self._queue.add(key_of(new or old)))

    async def join(self, name: str, *, cpu: str = "8") -> None:
        """Register a node, ready from its first heartbeat on."""
        amounts = {"cpu": cpu, "memory": "16Gi", "pods": "110"}
        await self._client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        await self._post_status(name, {"capacity": amounts, "allocatable": amounts})
        await self.heartbeat(name)
        self.alive.add(name)

    async def heartbeat(self, *names: str) -> None:
        for name in names or sorted(self.alive):
            await LeaseHolder(self._client, "kube-node-lease", name, name, duration=40, clock=self._clock).renew()

    async def resume(self, name: str) -> None:
        """The node is back after a silence: its agent reports it ready and looks at its pods."""
        self.alive.add(name)
        await self._post_status(name, {})
        await self.heartbeat(name)
        for key in self._pods.cache:
            self._queue.add(key)

    async def run(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._sync(self._pods.get(key))
            except StatusError as error:
                if error.code not in (404, 409):
                    raise
                self._queue.add_rate_limited(key)
            finally:
                self._queue.done(key)

    async def _post_status(self, name: str, status: Body) -> None:
        now = timestamp(self._clock.now())
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        body = {"status": status | {"conditions": [ready]}}
        await self._client.patch(NODES, name, body, kind=PatchType.STRATEGIC, subresource="status")

    async def _sync(self, pod: Pod | None) -> None:
        if pod is None or pod.spec.node_name not in self.alive:
            return
        metadata = pod.metadata
        if metadata.deletion_timestamp is not None:
            await self._client.delete(PODS, metadata.name, metadata.namespace, grace_period=0, uid=metadata.uid)
        elif pod.status.phase == "Pending":
            await self._start(pod)

    async def _start(self, pod: Pod) -> None:
        ready = {
            "type": "Ready",
            "status": "False" if self.broken(pod) else "True",
            "lastTransitionTime": timestamp(self._clock.now()),
        }
        body = {"status": {"phase": "Running", "conditions": [ready]}}
        metadata = pod.metadata
        await self._client.patch(
            PODS, metadata.name, body, metadata.namespace, kind=PatchType.STRATEGIC, subresource="status"
        )


def deployment(name: str = "web", replicas: int = 3, image: str = "app:1", **spec: Any) -> Body:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": image}], "terminationGracePeriodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


def replica_set(name: str = "rs", replicas: int = 2, **spec: Any) -> Body:
    return deployment(name, replicas, **spec) | {"kind": "ReplicaSet"}


def bare_pod(name: str, *, labels: Body | None = None, **spec: Any) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
        "spec": {"containers": [{"name": "c", "image": "app:1"}], "terminationGracePeriodSeconds": 1, **spec},
    }
