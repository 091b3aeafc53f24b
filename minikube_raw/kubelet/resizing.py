"""In-place resize of one pod, of its containers and as a whole: what is wished for, what the node has allocated, what cgroups have.

The worker drives the pod as allocated, so a wish without room changes nothing but a condition. What is in the cgroups is
read from the runtime's records; after a restart of the kubelet the words for it come from the wish, the status written
last or the container's own note, whichever has those numbers. Words are the kubelet's (pkg/kubelet/allocation, 1.36).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from minikube_raw.api.core import Container, Pod, ResourceRequirements
from minikube_raw.kubelet import allocations, convert, qos, syncpod
from minikube_raw.kubelet.allocations import Allocation
from minikube_raw.kubelet.pods import all_containers, container
from minikube_raw.kubelet.tools import Tools
from minikube_raw.runtime import cri
from minikube_raw.runtime.resources import update_in_order, widest

Json = dict[str, Any]


class Lag(msgspec.Struct, frozen=True):
    """A running container whose cgroup has not what is allocated to it, with what it is to have."""

    running: cri.ContainerStatus
    spec: Container
    wanted: cri.LinuxContainerResources
    restarts: bool  # to have it, by its resizePolicy


class Resizer:
    """Keeps one pod's allocation; everything else is looked at anew in each round."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._allocated: Allocation | None = None  # None before the first look
        self._whole: ResourceRequirements | None = None  # spec.resources as the pod's cgroup has them
        self._actual: dict[str, ResourceRequirements] = {}  # by container id, where it is not what it was created with
        self._pending: tuple[str, str] | None = None  # reason, message
        self._generation = 0  # of the wish that is being carried out; 0: none
        self._error = ""
        self._restarting: set[str] = set()

    def allocated(self, wish: Pod) -> Pod:
        """The pod as the node drives it."""
        return wish if self._allocated is None else allocations.over(wish, self._allocated)

    def look(self, wish: Pod, found: syncpod.Found, status: Json) -> Pod:
        """Take the newest wish in: allocate it if there is room. Returns the pod as the node drives it."""
        if self._allocated is None:
            self._allocated = self._recognized(wish, found, status)
            self._whole = self._allocated.whole
        present = allocations.over(wish, self._allocated)
        if allocations.asked(wish) == allocations.asked(present):
            self._pending = None
        elif (pending := self._tools.room.resize(wish)) is not None:
            self._wait(wish, *pending)
        else:
            self._allocate(wish)
        return allocations.over(wish, self._allocated)

    def conditions(self) -> list[tuple[str, bool, str, str]]:
        """PodResizePending and PodResizeInProgress, as (type, status, reason, message)."""
        shown = []
        if self._pending is not None:
            reason, message = self._pending
            shown.append(("PodResizePending", True, reason, message))
        if self._generation:
            shown.append(("PodResizeInProgress", True, "Error" if self._error else "", self._error))
        return shown

    def actual(self, pod: Pod, found: syncpod.Found) -> Mapping[str, ResourceRequirements]:
        """By container name: what the cgroup of the running container has, in the words of a spec."""
        running = {each.name: each for each in found.running()}
        return {name: self._has(each) for name, each in running.items() if container(pod, name) is not None}

    @property
    def whole(self) -> ResourceRequirements | None:
        """What the pod's own cgroup has, in the words of spec.resources."""
        return self._whole

    @property
    def waits_for_room(self) -> bool:
        """Whether the node has not what is asked for, at present."""
        return self._pending is not None

    @property
    def in_progress(self) -> bool:
        """Whether an allocated wish has not reached the cgroups yet."""
        return bool(self._generation)

    def stops(self, pod: Pod, found: syncpod.Found) -> list[syncpod.Action]:
        """Containers that take what changed only by a restart (resizePolicy)."""
        due: list[syncpod.Action] = []
        for each in self._lagging(pod, found) if self._generation else ():
            if each.restarts:
                name = each.spec.name
                self._restarting.add(name)
                message = f"Container {name} resize requires restart"
                due.append(syncpod.StopContainer(each.running.id, name, message, again=True))
        return due

    async def carry_out(self, pod: Pod, found: syncpod.Found) -> bool:
        """Change the cgroups of what need not restart; False when the runtime refused (the condition says why)."""
        sandbox = found.ready_sandbox
        if not self._generation or sandbox is None:
            return True
        lagging = self._lagging(pod, found)
        changing, restarting = [x for x in lagging if not x.restarts], [x for x in lagging if x.restarts]
        node = self._tools.node()
        old, new = sandbox.config.resources, qos.pod_resources(pod, node.pod_pids_limit, node.kernel)
        if restarting:
            new = widest(old, new)  # what restarts for its change has as much as before until then
        try:
            wanted = {each.running.id: each.wanted for each in changing}
            await update_in_order(self._tools.runtime, sandbox.id, old, new, wanted)
        except cri.RuntimeServiceError as error:
            self._error = str(error)
            return False
        self._error = ""
        self._actual |= {each.running.id: each.spec.resources for each in changing}
        if not restarting:
            self._whole = pod.spec.resources
            self._complete(pod, found)
        return True

    def _lagging(self, pod: Pod, found: syncpod.Found) -> list[Lag]:
        """By words and by numbers: what a container does not limit itself changes with its pod's own limit."""
        node, lagging = self._tools.node(), []
        for each in found.running():
            spec = container(pod, each.name)
            if spec is None:
                continue
            wanted, has = convert.container_resources(pod, spec, node), self._has(each)
            if has != spec.resources or allocations.enforced(wanted) != allocations.enforced(each.resources):
                restarts = allocations.needs_restart(spec, has, wanted, each.resources)
                lagging.append(Lag(each, spec, wanted, restarts))
        return lagging

    # -- steps -------------------------------------------------------------------------------------------------------

    def _allocate(self, wish: Pod) -> None:
        self._allocated, self._pending, self._error = allocations.asked(wish), None, ""
        self._generation = wish.metadata.generation or 1
        self._tools.record(wish, "Normal", "ResizeStarted", f"Pod resize started: {allocations.told(wish)}")

    def _wait(self, wish: Pod, reason: str, message: str, cause: str) -> None:
        if self._pending != (reason, message):
            self._pending = (reason, message)
            text = f"Pod resize {cause}: {allocations.told(wish, error=message)}"
            self._tools.record(wish, "Warning", f"Resize{reason}", text)

    def _complete(self, pod: Pod, found: syncpod.Found) -> None:
        """Everything that runs has what is allocated to it; it is done when what was to restart runs again."""
        self._restarting -= {each.name for each in found.running()}
        if not self._restarting:
            self._generation = 0
            self._tools.record(pod, "Normal", "ResizeCompleted", f"Pod resize completed: {allocations.told(pod)}")

    # -- what a cgroup has, in the words of a spec -------------------------------------------------------------------

    def _has(self, running: cri.ContainerStatus) -> ResourceRequirements:
        known = self._actual.get(running.id)
        return allocations.noted(running) if known is None else known

    def _recognized(self, wish: Pod, found: syncpod.Found, status: Json) -> Allocation:
        """What a pod was given that runs already: of each of its cgroups the first of our sources whose numbers it has."""
        pod = allocations.with_whole(wish, self._recognized_whole(wish, found, status))
        known = {each.name: self._recognized_one(pod, each, found, status) for each in all_containers(pod)}
        return Allocation(pod.spec.resources, known)

    def _recognized_whole(self, wish: Pod, found: syncpod.Found, status: Json) -> ResourceRequirements | None:
        asked, sandbox = wish.spec.resources, found.ready_sandbox
        if asked is None or sandbox is None:
            return asked
        has = allocations.enforced(sandbox.config.resources)
        candidates = [asked, *allocations.written_whole(status, asked)]
        for each in candidates:
            if allocations.enforced(qos.pod_resources(allocations.with_whole(wish, each))) == has:
                return each
        return candidates[-1]

    def _recognized_one(self, wish: Pod, spec: Container, found: syncpod.Found, status: Json) -> ResourceRequirements:
        running = found.latest(spec.name)
        if running is None or running.state is not cri.ContainerState.RUNNING:
            return spec.resources
        candidates = [spec.resources, *allocations.written(status, spec.name), allocations.noted(running)]
        for each in candidates:
            if self._numbers(wish, spec, each) == allocations.enforced(running.resources):
                self._actual[running.id] = each
                return each
        return candidates[-1]

    def _numbers(self, pod: Pod, spec: Container, resources: ResourceRequirements) -> tuple[int | None, ...]:
        wanted = msgspec.structs.replace(spec, resources=resources)
        pod = allocations.over(pod, Allocation(pod.spec.resources, {spec.name: resources}))
        return allocations.enforced(convert.container_resources(pod, wanted, self._tools.node()))
