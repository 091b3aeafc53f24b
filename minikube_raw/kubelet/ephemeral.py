"""Ephemeral containers (`kubectl debug`): started once beside what a pod runs, never again, whatever becomes of them.

Pure. A container with a target waits for it, since it joins the target's PID namespace; everything else about it (image,
variables, mounts) is prepared as for any other container.
"""

from __future__ import annotations

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet import syncpod
from minikube_raw.runtime.cri import ContainerState


def actions(pod: Pod, found: syncpod.Found) -> list[syncpod.Action]:
    """Starts of those that have never run; what was created and not started (a crash between) is continued."""
    due: list[syncpod.Action] = []
    if found.ready_sandbox is None or syncpod.is_finished(pod, found):
        return due
    for each in pod.spec.ephemeral_containers:
        last = found.latest(each.name)
        new = last is None or last.state is ContainerState.CREATED
        if new and _target_runs(each, found):
            due.append(syncpod.StartContainer(name=each.name, attempt=0))
    return due


def target_id(wanted: Container, found: syncpod.Found) -> str:
    """The runtime's id of the container whose processes it is to see; "" without a target."""
    target = found.latest(wanted.target_container_name) if wanted.target_container_name else None
    return target.id if target is not None else ""


def _target_runs(wanted: Container, found: syncpod.Found) -> bool:
    if not wanted.target_container_name:
        return True
    target = found.latest(wanted.target_container_name)
    return target is not None and target.state is ContainerState.RUNNING
