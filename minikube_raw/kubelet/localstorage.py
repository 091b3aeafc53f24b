"""Limits on what a pod keeps on the node's disk: emptyDir sizes, and ephemeral-storage of containers and pod.

Pure; such a pod is evicted in the kubelet's words (pkg/kubelet/eviction/eviction_manager.go, localStorageEviction), however
much room the node has. It is the pod's own doing, so there is no DisruptionTarget.
"""

from __future__ import annotations

from minikube_raw.api import quantity
from minikube_raw.api.core import Pod
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.pods import all_containers
from minikube_raw.kubelet.summary import PodDisk
from minikube_raw.linux.disk_usage import Use

_RESOURCE = "ephemeral-storage"
_GRACE = 1  # seconds


def is_limited(pod: Pod) -> bool:
    """Whether anything of the pod has such a limit, so that it has to be measured."""
    sized = any(volume.empty_dir is not None and volume.empty_dir.size_limit for volume in pod.spec.volumes)
    return sized or any(_limit(each.resources.limits) for each in all_containers(pod)) or bool(_pod_limit(pod))


def excess(pod: Pod, disk: PodDisk) -> Ending | None:
    """Why the pod has to go: an emptyDir first, then the pod as a whole, then a container."""
    message = _empty_dir(pod, disk) or _whole(pod, disk) or _container(pod, disk)
    return Ending("Evicted", message, _GRACE) if message else None


def _empty_dir(pod: Pod, disk: PodDisk) -> str:
    held = disk.volumes | disk.memory_volumes
    for volume in pod.spec.volumes:
        limit = volume.empty_dir.size_limit if volume.empty_dir is not None else None
        if limit and held.get(volume.name, Use()).bytes > quantity.parse(limit).value() > 0:
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{quantity.parse(limit)}". '
    return ""


def _whole(pod: Pod, disk: PodDisk) -> str:
    limit = _pod_limit(pod)
    if not limit or disk.total().bytes <= limit:
        return ""
    total = quantity.Quantity(limit * quantity.NANO, _form(pod))
    return f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "


def _container(pod: Pod, disk: PodDisk) -> str:
    for container in pod.spec.containers:
        limit = _limit(container.resources.limits)
        used = disk.rootfs.get(container.name, Use()).plus(disk.logs.get(container.name, Use())).bytes
        if limit and used > limit:
            shown = quantity.resource(container.resources.limits, _RESOURCE)
            return f'Container {container.name} exceeded its local ephemeral storage limit "{shown}". '
    return ""


def _limit(amounts: qos.Amounts) -> int:
    return quantity.resource(amounts, _RESOURCE).value()


def _pod_limit(pod: Pod) -> int:
    """The sum of what there is of limits, with the overhead; containers without one count against it too."""
    limit = qos.pod_amount(pod, _limit, limits=True)
    return limit + _limit(pod.spec.overhead) if limit else 0


def _form(pod: Pod) -> str:
    """A sum is written as its first summand is: 5M and 5Mi are both 5 of something."""
    limits = (
        quantity.resource(each.resources.limits, _RESOURCE)
        for each in (*pod.spec.containers, *pod.spec.init_containers)
    )
    return next((each.format for each in limits if each), quantity.BINARY_SI)
