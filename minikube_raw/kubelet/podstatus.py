"""The status a pod has: spec, what the runtime found and what hinders it → PodStatus as JSON.

Pure. Field order, reasons and messages are those Kubernetes 1.36's kubelet writes; times of conditions are taken over
from the status written before as long as the condition has not changed. Sending it is `statusmanager`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from minikube_raw.api.core import Container, Pod, ResourceRequirements, VolumeMount
from minikube_raw.client.clock import timestamp
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.pods import is_sidecar
from minikube_raw.kubelet.syncpod import Found, Health, coming_phase, init_succeeded
from minikube_raw.runtime.cri import ContainerState, ContainerStatus, LinuxContainerUser

Json = dict[str, Any]
RUNTIME_SCHEME = "minikube-raw"


class Waiting(msgspec.Struct, frozen=True):
    """Why a container does not run (yet)."""

    reason: str
    message: str = ""


class Circumstances(msgspec.Struct, frozen=True):
    """What the status depends on besides pod and runtime."""

    host_ip: str
    now: float  # seconds since the epoch
    waiting: Mapping[str, Waiting] = {}  # by container name
    image_names: Mapping[str, tuple[str, str]] = {}  # image id → (image, imageID) as statuses show them
    unready: frozenset[str] = frozenset()  # container ids whose readiness probe has not succeeded
    not_started: frozenset[str] = frozenset()  # container ids whose startup probe has not succeeded
    messages: Mapping[str, str] = {}  # container id → its termination message
    actual: Mapping[str, ResourceRequirements] = {}  # by container name: what its cgroup has, where it is being resized
    resizing: Sequence[tuple[str, bool, str, str]] = ()  # conditions of a resize
    recursive_read_only: bool = False  # what the node can
    terminating: bool = False
    terminated: bool = False  # containers and sandbox are gone for good
    ending: Ending | None = None  # the pod is ended, or has ended, as a whole


def pod_status(pod: Pod, found: Found, around: Circumstances, previous: Json) -> Json:
    """The whole PodStatus. `previous` is the status written last ({} when there is none)."""
    init = [_container_status(pod, each, found, around, previous, init=True) for each in pod.spec.init_containers]
    main = [_container_status(pod, each, found, around, previous, init=False) for each in pod.spec.containers]
    phase = _phase(pod, found, main, init, around, previous)
    status: Json = {"observedGeneration": pod.metadata.generation or None, "phase": phase}
    status["conditions"] = _conditions(pod, found, around, previous, phase, init, main)
    status |= _why(around, previous)
    status |= _addresses(pod, found, around, previous)
    status["startTime"] = previous.get("startTime") or timestamp(around.now)
    status |= {"initContainerStatuses": init} if init else {}
    status |= {"containerStatuses": main, "qosClass": qos.qos_class(pod).value}
    status |= _ephemeral(pod, found, around, previous) | _pod_resources(pod, around.actual)
    return {key: value for key, value in status.items() if value is not None}


def _why(around: Circumstances, previous: Json) -> Json:
    """Message and reason of a pod that was ended as a whole, shown with its last phase and never taken back."""
    if previous.get("phase") in ("Succeeded", "Failed"):
        return {key: previous[key] for key in ("message", "reason") if key in previous}
    if around.ending is None or not around.terminated:
        return {}
    return {"message": around.ending.message, "reason": around.ending.reason}


def refused_status(pod: Pod, reason: str, message: str, now: float) -> Json:
    """The PodStatus of a pod that the node does not admit: Failed, with no conditions and no containers."""
    return {
        "observedGeneration": pod.metadata.generation,
        "phase": "Failed",
        "message": f"Pod was rejected: {message}",
        "reason": reason,
        "startTime": timestamp(now),
        "qosClass": qos.qos_class(pod).value,
    }


def _ephemeral(pod: Pod, found: Found, around: Circumstances, previous: Json) -> Json:
    """ephemeralContainerStatuses: never ready, and without `started`, for nobody waits for them."""
    shown = []
    for each in pod.spec.ephemeral_containers:
        status = _container_status(pod, each, found, around, previous, init=False) | {"ready": False}
        del status["started"]
        if status["state"].get("waiting", {}).get("reason") == "PodInitializing":
            status["state"] = {"waiting": {"reason": "ContainerCreating"}}
        shown.append(status)
    return {"ephemeralContainerStatuses": shown} if shown else {}


# -- containers ------------------------------------------------------------------------------------------------------


def _container_status(
    pod: Pod, container: Container, found: Found, around: Circumstances, previous: Json, *, init: bool
) -> Json:
    runs = found.runs_of(container.name)
    last = runs[0] if runs else None
    state, last_state = _states(pod, container, found, around, init=init)
    running = "running" in state
    started = running and last is not None and last.id not in around.not_started
    ready = _is_ready(container, last, around, running=running and started, init=init)
    result: Json = {"name": container.name, "state": state, "lastState": last_state, "ready": ready}
    result["restartCount"] = last.attempt if last else 0
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
        return {"waiting": _without_empty({"reason": waiting.reason, "message": waiting.message})}, _terminated(
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
        "terminated": _without_empty({"exitCode": run.exit_code, "reason": reason, "message": message})
        | {"startedAt": timestamp(run.started_at / 1e9), "finishedAt": timestamp(run.finished_at / 1e9)}
        | {"containerID": _container_id(run)}
    }


def _without_empty(fields: Json) -> Json:
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
    kinds = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    written = [each for kind in kinds for each in previous.get(kind, ())]
    before = next((each for each in written if each.get("containerID") == _container_id(last)), None)
    return (before["image"], before["imageID"]) if before else (last.image_name or container.image, last.image)


def _resources(container: Container, actual: ResourceRequirements) -> Json:
    """allocatedResources are what the node has promised, resources what the cgroup has; they differ during a resize."""
    # a limit alone asks for as much (the API server defaults it; a manifest may not)
    allocated = _quantities(container.resources.requests or container.resources.limits)
    limits, requests = _quantities(actual.limits), _quantities(actual.requests or actual.limits)
    both: Json = ({"limits": limits} if limits else {}) | ({"requests": requests} if requests else {})
    return ({"allocatedResources": allocated} if allocated else {}) | {"resources": both}


def _pod_resources(pod: Pod, actual: Mapping[str, ResourceRequirements]) -> Json:
    """status.allocatedResources and status.resources: the sums over the containers."""
    allocated = qos.totals([qos.requests_of(each) for each in pod.spec.containers])
    has = [actual.get(each.name, each.resources) for each in pod.spec.containers]
    requests = qos.totals([{**each.limits, **each.requests} for each in has])
    limits = qos.totals([each.limits for each in has], everywhere=True)
    shown: Json = ({"limits": limits} if limits else {}) | ({"requests": requests} if requests else {})
    return ({"allocatedResources": allocated} if allocated else {}) | {"resources": shown}


def _quantities(amounts: qos.Amounts) -> dict[str, str]:
    return {name: str(amount) for name, amount in amounts.items()}


def _volume_mount(mount: VolumeMount, around: Circumstances) -> Json:
    shown: Json = {"name": mount.name, "mountPath": mount.mount_path}
    if not mount.read_only:
        return shown
    recursive = around.recursive_read_only and mount.recursive_read_only in ("Enabled", "IfPossible")
    return shown | {"readOnly": True, "recursiveReadOnly": "Enabled" if recursive else "Disabled"}


# -- the pod ---------------------------------------------------------------------------------------------------------


def _phase(pod: Pod, found: Found, main: list[Json], init: list[Json], around: Circumstances, previous: Json) -> str:
    """PodPhase. A terminal phase is shown only once everything is stopped, and never left again."""
    if previous.get("phase") in ("Succeeded", "Failed"):
        return str(previous["phase"])
    if around.terminated and around.ending is not None:
        return "Failed"
    if around.terminated:
        return _terminal_phase(pod, found, main)
    initialized = all(init_succeeded(each, found) for each in pod.spec.init_containers)
    started = any(found.runs_of(each.name) for each in pod.spec.containers)
    if not started and (not initialized or pod.spec.init_containers):
        return "Pending"
    return "Running" if started and not _some_never_ran(main) else "Pending"


def _terminal_phase(pod: Pod, found: Found, main: list[Json]) -> str:
    exits = [each["state"].get("terminated", {}).get("exitCode", 137) for each in main]
    failed_init = any(
        (last := found.latest(each.name)) is not None and last.exit_code != 0 and not is_sidecar(each)
        for each in pod.spec.init_containers
    )
    return "Failed" if failed_init or any(exits) else "Succeeded"


def _some_never_ran(main: Iterable[Json]) -> bool:
    """A container that waits and has never ended keeps a pod Pending."""
    return any("waiting" in each["state"] and not each["lastState"] for each in main)


def _addresses(pod: Pod, found: Found, around: Circumstances, previous: Json) -> Json:
    sandbox = found.ready_sandbox or found.sandbox
    if pod.spec.host_network:
        ips: list[str] = [around.host_ip] if sandbox else []
    else:
        ips = list(sandbox.ips) if sandbox else []
    shown: Json = {"hostIP": around.host_ip, "hostIPs": [{"ip": around.host_ip}]}
    if not ips:
        return shown | {key: previous[key] for key in ("podIP", "podIPs") if key in previous}
    return shown | {"podIP": ips[0], "podIPs": [{"ip": each} for each in ips]}


def _conditions(
    pod: Pod, found: Found, around: Circumstances, previous: Json, phase: str, init: list[Json], main: list[Json]
) -> list[Json]:
    """The kubelet's conditions in its order; conditions of others are theirs to write."""
    ready = _containers_ready(pod, found, around, phase, init, main)
    own = [
        *around.resizing,
        ("PodReadyToStartContainers", found.ready_sandbox is not None and not around.terminated, "", ""),
        ("Initialized", *_initialized(pod, found, phase, around)),
        ("Ready", *_with_gates(pod, ready)),
        ("ContainersReady", *ready),
        ("PodScheduled", True, "", ""),
    ]
    if around.ending is not None and around.terminated:
        own += [_given(each) for each in around.ending.conditions]
    before = {each["type"]: each for each in previous.get("conditions", ())}
    return [_condition(pod, each, before, around.now) for each in own]


def _given(condition: Json) -> tuple[str, bool, str, str]:
    return (
        condition["type"],
        condition["status"] == "True",
        condition.get("reason", ""),
        condition.get("message", ""),
    )


def _condition(pod: Pod, wanted: tuple[str, bool, str, str], before: Mapping[str, Json], now: float) -> Json:
    kind, holds, reason, message = wanted
    status = "True" if holds else "False"
    old = before.get(kind, {})
    since = old.get("lastTransitionTime") if old.get("status") == status else None
    shown: Json = {"type": kind}
    shown |= {"observedGeneration": pod.metadata.generation} if pod.metadata.generation else {}
    shown |= {"status": status, "lastProbeTime": None, "lastTransitionTime": since or timestamp(now)}
    return shown | _without_empty({"reason": reason, "message": message})


def _initialized(pod: Pod, found: Found, phase: str, around: Circumstances) -> tuple[bool, str, str]:
    health = Health(around.not_started)
    incomplete = [each.name for each in pod.spec.init_containers if not init_succeeded(each, found, health)]
    if phase == "Succeeded" or (around.ending is None and coming_phase(pod, found) == "Succeeded"):
        return True, "PodCompleted", ""
    if incomplete and not any(found.runs_of(each.name) for each in pod.spec.containers):
        return False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]"
    return True, "", ""


def _containers_ready(
    pod: Pod, found: Found, around: Circumstances, phase: str, init: list[Json], main: list[Json]
) -> tuple[bool, str, str]:
    coming = "Failed" if around.ending is not None else coming_phase(pod, found)
    if "Succeeded" in (phase, coming):
        return False, "PodCompleted", ""
    if "Failed" in (phase, coming):
        return False, "PodFailed", ""
    sidecars = {each.name for each in pod.spec.init_containers if is_sidecar(each)}
    counted = [each for each in init if each["name"] in sidecars] + main
    unready = [each["name"] for each in counted if not each["ready"]]
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    return True, "", ""


def _with_gates(pod: Pod, ready: tuple[bool, str, str]) -> tuple[bool, str, str]:
    """Ready is ContainersReady and every readiness gate (a condition that others set)."""
    if not ready[0] or not pod.spec.readiness_gates:
        return ready
    status = {each.type: each.status for each in pod.status.conditions}
    open_gates = [gate.condition_type for gate in pod.spec.readiness_gates]
    missing = [gate for gate in open_gates if status.get(gate) != "True"]
    if not missing:
        return ready
    quoted = "; ".join(f'corresponding condition of pod readiness gate "{gate}" does not exist.' for gate in missing)
    return False, "ReadinessGatesNotReady", quoted
