"""What a pod's status says of one container: its state, how it ended before, its image, user and resources. Pure."""

from __future__ import annotations

from typing import Any

from minikube_raw.api.core import Container, Pod, ResourceRequirements, VolumeMount
from minikube_raw.client.clock import timestamp
from minikube_raw.kubelet import qos, restartingall
from minikube_raw.kubelet.circumstances import Circumstances
from minikube_raw.kubelet.pods import is_sidecar
from minikube_raw.kubelet.restarts import whole_restart
from minikube_raw.kubelet.syncpod import Found, init_succeeded
from minikube_raw.runtime.cri import ContainerState, ContainerStatus, LinuxContainerUser

Json = dict[str, Any]
RUNTIME_SCHEME = "minikube-raw"


def container_status(
    pod: Pod, container: Container, found: Found, around: Circumstances, previous: Json, *, init: bool
) -> Json:
    """The ContainerStatus; `init`: it is one of the pod's init containers."""
    last, restart = found.latest(container.name), whole_restart(pod, found.containers)
    count = last.attempt if last else 0
    state, last_state = _states(pod, container, found, around, init=init)
    if restart is not None and restartingall.begins_anew(container, found, restart, around):
        state, last_state = restartingall.waiting(pod, container, restart, around), restartingall.ENDED
        last, count = None, count + 1
    elif restartingall.ended_with_all(container, found, restart, _written(container.name, previous)):
        last_state = restartingall.ENDED
    running = "running" in state
    started = running and last is not None and last.id not in around.not_started
    ready = _is_ready(container, last, around, running=running and started, init=init)
    result: Json = {"name": container.name, "state": state, "lastState": last_state, "ready": ready}
    result["restartCount"] = count
    image, image_id = _image(container, last, around, previous)
    result |= {"image": image, "imageID": image_id}
    result |= {"containerID": _container_id(last)} if last else {}
    result["started"] = started
    if last is not None:
        result |= _resources(container, around.actual.get(container.name, container.resources))
    if container.volume_mounts:
        result["volumeMounts"] = [_volume_mount(each, around) for each in container.volume_mounts]
    if last is not None and last.user is not None:
        result["user"] = {"linux": _user(last.user)}
    return result


def _user(user: LinuxContainerUser) -> Json:
    return {"uid": user.uid, "gid": user.gid, "supplementalGroups": list(user.supplemental_groups)}


def _is_ready(
    container: Container, last: ContainerStatus | None, around: Circumstances, *, running: bool, init: bool
) -> bool:
    if init and not is_sidecar(container):
        return last is not None and last.state is ContainerState.EXITED and last.exit_code == 0
    return running and last is not None and last.id not in around.unready


def _states(pod: Pod, container: Container, found: Found, around: Circumstances, *, init: bool) -> tuple[Json, Json]:
    """(state, lastState): a container that waits for its restart shows how it ended in lastState."""
    runs = found.runs_of(container.name)
    waiting = around.waiting.get(container.name)
    ended = [each for each in runs if _has_ended(each)]
    if runs and runs[0].state is ContainerState.RUNNING:
        return {"running": {"startedAt": timestamp(runs[0].started_at / 1e9)}}, _terminated(ended[:1], around)
    if runs and _has_ended(runs[0]) and not (waiting and not around.terminating and not around.terminated):
        return _terminated(ended[:1], around), _terminated(ended[1:2], around)
    if waiting is not None and not around.terminated:
        return {"waiting": without_empty({"reason": waiting.reason, "message": waiting.message})}, _terminated(
            ended[:1], around
        )
    if around.terminated and not runs and _was_due(pod, container, found, init=init):
        return _never_located(), {}
    reason = "PodInitializing" if pod.spec.init_containers else "ContainerCreating"
    return {"waiting": {"reason": reason}}, _terminated(ended[:1], around)


def _was_due(pod: Pod, container: Container, found: Found, *, init: bool) -> bool:
    """Whether a container of a pod that has ended should have run: init containers up to the last seen, others after all."""
    inits = [each.name for each in pod.spec.init_containers]
    main_ran = any(found.runs_of(each.name) for each in pod.spec.containers)
    if not init:
        return main_ran or all(init_succeeded(each, found) or _ran(each, found) for each in pod.spec.init_containers)
    return main_ran or any(found.runs_of(name) for name in inits[inits.index(container.name) :])


def _ran(sidecar: Container, found: Found) -> bool:
    """Whether a sidecar has run; that it does not any more is the pod's end, not its own."""
    last = found.latest(sidecar.name)
    return is_sidecar(sidecar) and last is not None and last.started_at > 0


def _has_ended(status: ContainerStatus) -> bool:
    return status.state in (ContainerState.EXITED, ContainerState.UNKNOWN)


def _never_located() -> Json:
    message = "The container could not be located when the pod was terminated"
    never: Json = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": message}
    return {"terminated": {**never, "startedAt": None, "finishedAt": None}}


def _terminated(runs: list[ContainerStatus], around: Circumstances) -> Json:
    """ContainerState.terminated of the first of runs, or {}."""
    if not runs:
        return {}
    run = runs[0]
    reason = run.reason or ("Completed" if run.exit_code == 0 else "Error")
    message = run.message or around.messages.get(run.id, "")
    return {
        "terminated": without_empty({"exitCode": run.exit_code, "reason": reason, "message": message})
        | {"startedAt": timestamp(run.started_at / 1e9), "finishedAt": timestamp(run.finished_at / 1e9)}
        | {"containerID": _container_id(run)}
    }


def without_empty(fields: Json) -> Json:
    """Without fields that are "", as Kubernetes leaves them out."""
    return {key: value for key, value in fields.items() if value != ""}


def _container_id(run: ContainerStatus) -> str:
    return f"{RUNTIME_SCHEME}://{run.id}"


def _image(
    container: Container, last: ContainerStatus | None, around: Circumstances, previous: Json
) -> tuple[str, str]:
    """(image, imageID); a kubelet that was restarted finds them in the status written before."""
    if last is None:
        return container.image, ""
    known = around.image_names.get(last.image)
    if known is not None:
        return known
    before = _written(container.name, previous)
    if before.get("containerID") == _container_id(last):
        return before["image"], before["imageID"]
    return last.image_name or container.image, last.image


def _written(name: str, previous: Json) -> Json:
    """The status a container had before, or {}."""
    kinds = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    written = (each for kind in kinds for each in previous.get(kind, ()))
    return next((each for each in written if each["name"] == name), {})


def _resources(container: Container, actual: ResourceRequirements) -> Json:
    """allocatedResources are what the node has promised, resources what the cgroup has; they differ during a resize."""
    # a limit alone asks for as much (the API server defaults it; a manifest may not)
    allocated = quantities(container.resources.requests or container.resources.limits)
    limits, requests = quantities(actual.limits), quantities(actual.requests or actual.limits)
    both: Json = ({"limits": limits} if limits else {}) | ({"requests": requests} if requests else {})
    return ({"allocatedResources": allocated} if allocated else {}) | {"resources": both}


def quantities(amounts: qos.Amounts) -> dict[str, str]:
    """Amounts as texts of a status."""
    return {name: str(amount) for name, amount in amounts.items()}


def _volume_mount(mount: VolumeMount, around: Circumstances) -> Json:
    shown: Json = {"name": mount.name, "mountPath": mount.mount_path}
    if not mount.read_only:
        return shown
    recursive = around.recursive_read_only and mount.recursive_read_only in ("Enabled", "IfPossible")
    return shown | {"readOnly": True, "recursiveReadOnly": "Enabled" if recursive else "Disabled"}
