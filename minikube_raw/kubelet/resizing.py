"""In-place resize of one pod: what is wished for, what the node has allocated to it, what its cgroups have, step by step.

The worker drives the pod as allocated, so a wish without room changes nothing but a condition. What is in the cgroups is
read from the runtime's records; after a restart of the kubelet the words for it come from the wish, the status written
last or the container's own note, whichever has those numbers. Words are the kubelet's (pkg/kubelet/allocation, 1.36).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from minikube_raw.api.core import Container, Pod, ResourceRequirements
from minikube_raw.kubelet import convert, qos, syncpod
from minikube_raw.kubelet.pods import all_containers, container
from minikube_raw.kubelet.tools import Tools
from minikube_raw.runtime import cri
from minikube_raw.runtime.resources import update_in_order, widest

Json = dict[str, Any]
_RESIZABLE = ("cpu", "memory")


class Resizer:
    """Keeps one pod's allocation; everything else is looked at anew in each round."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._allocated: dict[str, ResourceRequirements] | None = None  # by container; None before the first look
        self._actual: dict[str, ResourceRequirements] = {}  # by container id, where it is not what it was created with
        self._pending: tuple[str, str] | None = None  # reason, message
        self._generation = 0  # of the wish that is being carried out; 0: none
        self._error = ""
        self._restarting: set[str] = set()

    def allocated(self, wish: Pod) -> Pod:
        """The pod as the node drives it."""
        return wish if self._allocated is None else _with(wish, self._allocated)

    def look(self, wish: Pod, found: syncpod.Found, status: Json) -> Pod:
        """Take the newest wish in: allocate it if there is room. Returns the pod as the node drives it."""
        if self._allocated is None:
            known = {each.name: self._recognized(wish, each, found, status) for each in all_containers(wish)}
            self._allocated = known
        present = _with(wish, self._allocated)
        if _asked(wish) == _asked(present):
            self._pending = None
        elif (pending := self._tools.room.resize(wish)) is not None:
            self._wait(wish, *pending)
        else:
            self._allocate(wish)
        return _with(wish, self._allocated)

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
        for each in found.running() if self._generation else ():
            spec = container(pod, each.name)
            if spec is not None and _needs_restart(spec, self._has(each)):
                self._restarting.add(each.name)
                message = f"Container {each.name} resize requires restart"
                due.append(syncpod.StopContainer(each.id, each.name, message, again=True))
        return due

    async def carry_out(self, pod: Pod, found: syncpod.Found) -> bool:
        """Change the cgroups of what need not restart; False when the runtime refused (the condition says why)."""
        sandbox = found.ready_sandbox
        if not self._generation or sandbox is None:
            return True
        node, running = self._tools.node(), [(each, container(pod, each.name)) for each in found.running()]
        lagging = [(each, spec) for each, spec in running if spec is not None and self._has(each) != spec.resources]
        changing = {each.id: spec for each, spec in lagging if not _needs_restart(spec, self._has(each))}
        wanted = {key: convert.container_resources(pod, spec, node) for key, spec in changing.items()}
        old, new = sandbox.config.resources, qos.pod_resources(pod, node.pod_pids_limit)
        if len(changing) < len(lagging):
            new = widest(old, new)  # what restarts for its change has as much as before until then
        try:
            await update_in_order(self._tools.runtime, sandbox.id, old, new, wanted)
        except cri.RuntimeServiceError as error:
            self._error = str(error)
            return False
        self._error = ""
        self._actual |= {key: spec.resources for key, spec in changing.items()}
        self._complete(pod, found)
        return True

    # -- steps -------------------------------------------------------------------------------------------------------

    def _allocate(self, wish: Pod) -> None:
        self._allocated, self._pending, self._error = _asked(wish), None, ""
        self._generation = wish.metadata.generation or 1
        self._tools.record(wish, "Normal", "ResizeStarted", f"Pod resize started: {_told(wish)}")

    def _wait(self, wish: Pod, reason: str, message: str, cause: str) -> None:
        if self._pending != (reason, message):
            self._pending = (reason, message)
            text = f"Pod resize {cause}: {_told(wish, error=message)}"
            self._tools.record(wish, "Warning", f"Resize{reason}", text)

    def _complete(self, pod: Pod, found: syncpod.Found) -> None:
        """Everything that runs has what is allocated to it, and what was to restart runs again."""
        running = {each.name: each for each in found.running()}
        for name in list(self._restarting & running.keys()):
            spec = container(pod, name)
            if spec is not None and self._has(running[name]) == spec.resources:
                self._restarting.discard(name)
        lagging = [name for name, actual in self.actual(pod, found).items() if actual != _spec(pod, name)]
        if not lagging and not self._restarting:
            self._generation = 0
            self._tools.record(pod, "Normal", "ResizeCompleted", f"Pod resize completed: {_told(pod)}")

    # -- what a cgroup has, in the words of a spec -------------------------------------------------------------------

    def _has(self, running: cri.ContainerStatus) -> ResourceRequirements:
        known = self._actual.get(running.id)
        return _noted(running) if known is None else known

    def _recognized(self, wish: Pod, spec: Container, found: syncpod.Found, status: Json) -> ResourceRequirements:
        """What a container that runs already was given: the first of our sources whose numbers its cgroup has."""
        running = found.latest(spec.name)
        if running is None or running.state is not cri.ContainerState.RUNNING:
            return spec.resources
        candidates = [spec.resources, *_written(status, spec.name), _noted(running)]
        for each in candidates:
            if self._numbers(wish, spec, each) == _enforced(running.resources):
                self._actual[running.id] = each
                return each
        return candidates[-1]

    def _numbers(self, pod: Pod, spec: Container, resources: ResourceRequirements) -> tuple[int | None, ...]:
        wanted = msgspec.structs.replace(spec, resources=resources)
        node = self._tools.node()
        return _enforced(convert.container_resources(_with(pod, {spec.name: resources}), wanted, node))


def _noted(running: cri.ContainerStatus) -> ResourceRequirements:
    text = running.annotations.get(convert.RESOURCES)
    return ResourceRequirements() if text is None else msgspec.json.decode(text, type=ResourceRequirements)


def _written(status: Json, name: str) -> Iterable[ResourceRequirements]:
    for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if each["name"] == name and each.get("resources"):
            yield msgspec.convert(each["resources"], ResourceRequirements)


def _enforced(resources: cri.LinuxContainerResources) -> tuple[int | None, ...]:
    return resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes


def _asked(pod: Pod) -> dict[str, ResourceRequirements]:
    return {each.name: each.resources for each in all_containers(pod)}


def _spec(pod: Pod, name: str) -> ResourceRequirements | None:
    found = container(pod, name)
    return None if found is None else found.resources


def _with(pod: Pod, resources: Mapping[str, ResourceRequirements]) -> Pod:
    """The pod with its containers' resources replaced; itself when that changes nothing."""
    if all(resources.get(each.name, each.resources) == each.resources for each in all_containers(pod)):
        return pod
    lists = {
        kind: tuple(
            msgspec.structs.replace(each, resources=resources.get(each.name, each.resources))
            for each in getattr(pod.spec, kind)
        )
        for kind in ("containers", "init_containers")
    }
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, **lists))


def _needs_restart(spec: Container, actual: ResourceRequirements) -> bool:
    changed = {name for name in _RESIZABLE if _amounts(spec.resources, name) != _amounts(actual, name)}
    return any(
        each.restart_policy == "RestartContainer" and each.resource_name in changed for each in spec.resize_policy
    )


def _amounts(resources: ResourceRequirements, name: str) -> tuple[Any, Any]:
    return resources.requests.get(name), resources.limits.get(name)


def _told(pod: Pod, error: str = "") -> str:
    """The JSON that goes into resize Events."""
    told: Json = {}
    sidecars = [each for each in pod.spec.init_containers if each.restart_policy == "Always"]
    for kind, containers in (("initContainers", sidecars), ("containers", pod.spec.containers)):
        if containers:
            told[kind] = [{"name": each.name, "resources": _shown(each.resources)} for each in containers]
    told["generation"] = pod.metadata.generation
    return msgspec.json.encode(told | ({"error": error} if error else {})).decode()


def _shown(resources: ResourceRequirements) -> Json:
    both = {"limits": resources.limits, "requests": resources.requests}
    return {name: dict(sorted(amounts.items())) for name, amounts in both.items() if amounts}
