"""What every pod's worker of a node works with: the runtime, preparation, a sink for statuses and one for Events, a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import Clock
from minikube_raw.kubelet import convert, runtimeclasses, syncpod
from minikube_raw.kubelet.cpumanager import CPUManager
from minikube_raw.kubelet.images import EventSink
from minikube_raw.kubelet.loglinks import LogLinks
from minikube_raw.kubelet.memorymanager import MemoryManager
from minikube_raw.kubelet.preparation import Preparation
from minikube_raw.kubelet.probecounts import ProbeCounts
from minikube_raw.kubelet.room import Room
from minikube_raw.runtime import cri

Json = dict[str, Any]


class StatusSink(Protocol):
    """Where statuses go: the API server, or a list that the standalone agent shows."""

    def set(self, pod: Pod, status: Json, server_has: Json) -> None:
        """Show a status."""
        ...

    def delete(self, pod: Pod) -> None:
        """The pod has ended as its deletion asked for: remove the object."""
        ...

    def forget(self, uid: str) -> None:
        """The object is gone."""
        ...


class Tools(msgspec.Struct, frozen=True):
    """One of these per node, shared by its workers."""

    runtime: cri.RuntimeService
    preparation: Preparation
    statuses: StatusSink
    record: EventSink
    clock: Clock
    node: Callable[[], convert.NodeFacts]
    logs_dir: str
    check_runtime: runtimeclasses.Check = runtimeclasses.any_handler
    room: Room = msgspec.field(default_factory=Room)
    links: LogLinks = msgspec.field(default_factory=LogLinks)
    cpus: CPUManager | None = None  # None: wherever the kernel puts them
    memory: MemoryManager | None = None  # likewise
    probed: ProbeCounts = msgspec.field(default_factory=ProbeCounts)

    async def find(self, uid: str) -> syncpod.Found:
        """What the runtime has of a pod."""
        sandboxes = await self.runtime.list_pod_sandboxes(uid)
        containers: list[cri.ContainerStatus] = []
        for sandbox in sandboxes:
            containers += await self.runtime.list_containers(sandbox.id)
        return syncpod.found(sandboxes, containers)
