"""What a pod is given, in the words of its spec: read from a wish, put over it, told in Events, compared with cgroups. Pure.

`resizing` decides with it. The words of Events are the kubelet's (pkg/kubelet/allocation, 1.36).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from minikube_raw.api.core import Container, Pod, ResourceRequirements
from minikube_raw.kubelet import convert
from minikube_raw.kubelet.pods import all_containers
from minikube_raw.runtime import cri

Json = dict[str, Any]
_RESIZABLE = ("cpu", "memory")


class Allocation(msgspec.Struct, frozen=True):
    """What the node has promised a pod: as a whole (spec.resources), and to its containers by name."""

    whole: ResourceRequirements | None
    containers: Mapping[str, ResourceRequirements]


def asked(pod: Pod) -> Allocation:
    """What a pod asks for."""
    return Allocation(pod.spec.resources, {each.name: each.resources for each in all_containers(pod)})


def over(pod: Pod, given: Allocation) -> Pod:
    """The pod with its resources replaced; itself when that changes nothing."""
    pod = with_whole(pod, given.whole)
    resources = given.containers
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


def with_whole(pod: Pod, whole: ResourceRequirements | None) -> Pod:
    """The pod with its own resources replaced; itself when that changes nothing."""
    if pod.spec.resources == whole:
        return pod
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, resources=whole))


def noted(running: cri.ContainerStatus) -> ResourceRequirements:
    """What a container was created with, by its own note."""
    text = running.annotations.get(convert.RESOURCES)
    return ResourceRequirements() if text is None else msgspec.json.decode(text, type=ResourceRequirements)


def written(status: Json, name: str) -> Iterable[ResourceRequirements]:
    """What the status written last says that a container has."""
    for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if each["name"] == name and each.get("resources"):
            yield msgspec.convert(each["resources"], ResourceRequirements)


def written_whole(status: Json, asked: ResourceRequirements) -> Iterable[ResourceRequirements]:
    """The same of the pod as a whole: of what is asked for, since a status adds what the containers have together."""
    if status.get("resources"):
        shown = msgspec.convert(status["resources"], ResourceRequirements)
        yield ResourceRequirements(
            limits={name: amount for name, amount in shown.limits.items() if name in asked.limits},
            requests={name: amount for name, amount in shown.requests.items() if name in asked.requests},
        )


def enforced(resources: cri.LinuxContainerResources) -> tuple[int | None, ...]:
    """What of it is in a cgroup's files and can be resized."""
    return resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes


def needs_restart(
    spec: Container,
    has: ResourceRequirements,
    wanted: cri.LinuxContainerResources,
    present: cri.LinuxContainerResources,
) -> bool:
    """Whether a container takes what changed, in its own words or by its pod's limit, only by a restart (resizePolicy)."""
    changed = {name for name in _RESIZABLE if _amounts(spec.resources, name) != _amounts(has, name)}
    changed |= {"cpu"} if wanted.cpu_quota != present.cpu_quota else set()
    changed |= {"memory"} if wanted.memory_limit_in_bytes != present.memory_limit_in_bytes else set()
    return any(
        each.restart_policy == "RestartContainer" and each.resource_name in changed for each in spec.resize_policy
    )


def _amounts(resources: ResourceRequirements, name: str) -> tuple[Any, Any]:
    return resources.requests.get(name), resources.limits.get(name)


def told(pod: Pod, error: str = "") -> str:
    """The JSON that goes into resize Events."""
    told: Json = {"resources": _shown(pod.spec.resources)} if pod.spec.resources is not None else {}
    sidecars = [each for each in pod.spec.init_containers if each.restart_policy == "Always"]
    for kind, containers in (("initContainers", sidecars), ("containers", pod.spec.containers)):
        if containers:
            told[kind] = [{"name": each.name, "resources": _shown(each.resources)} for each in containers]
    told["generation"] = pod.metadata.generation
    return msgspec.json.encode(told | ({"error": error} if error else {})).decode()


def _shown(resources: ResourceRequirements) -> Json:
    both = {"limits": resources.limits, "requests": resources.requests}
    return {name: dict(sorted(amounts.items())) for name, amounts in both.items() if amounts}
