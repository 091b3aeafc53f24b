"""The status a pod has: spec, what the runtime found and what hinders it → PodStatus as JSON.

Pure. Field order, reasons and messages are those Kubernetes 1.36's kubelet writes; times of conditions are taken over
from the status written before as long as the condition has not changed. Sending it is `statusmanager`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minikube_raw.api.core import Pod, ResourceRequirements
from minikube_raw.client.clock import timestamp
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.circumstances import Circumstances
from minikube_raw.kubelet.containerstatus import container_status, quantities
from minikube_raw.kubelet.podconditions import conditions
from minikube_raw.kubelet.pods import is_sidecar
from minikube_raw.kubelet.syncpod import Found, init_succeeded

Json = dict[str, Any]


def pod_status(pod: Pod, found: Found, around: Circumstances, previous: Json) -> Json:
    """The whole PodStatus. `previous` is the status written last ({} when there is none)."""
    init = [container_status(pod, each, found, around, previous, init=True) for each in pod.spec.init_containers]
    main = [container_status(pod, each, found, around, previous, init=False) for each in pod.spec.containers]
    phase = _phase(pod, found, main, init, around, previous)
    status: Json = {"observedGeneration": pod.metadata.generation or None, "phase": phase}
    status["conditions"] = conditions(pod, found, around, previous, phase, init, main)
    status |= _why(around, previous)
    status |= _addresses(pod, found, around, previous)
    status["startTime"] = previous.get("startTime") or timestamp(around.now)
    status |= {"initContainerStatuses": init} if init else {}
    status |= {"containerStatuses": main, "qosClass": qos.qos_class(pod).value}
    status |= _ephemeral(pod, found, around, previous) | _pod_resources(pod, around)
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
        status = container_status(pod, each, found, around, previous, init=False) | {"ready": False}
        del status["started"]
        if status["state"].get("waiting", {}).get("reason") == "PodInitializing":
            status["state"] = {"waiting": {"reason": "ContainerCreating"}}
        shown.append(status)
    return {"ephemeralContainerStatuses": shown} if shown else {}


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


def _pod_resources(pod: Pod, around: Circumstances) -> Json:
    """status.allocatedResources and status.resources: the pod's own, over the sums of its containers."""
    promised, own = pod.spec.resources or ResourceRequirements(), around.whole or ResourceRequirements()
    allocated = qos.totals([qos.requests_of(each) for each in pod.spec.containers])
    allocated |= quantities({**promised.limits, **promised.requests})
    has = [around.actual.get(each.name, each.resources) for each in pod.spec.containers]
    requests = qos.totals([{**each.limits, **each.requests} for each in has])
    requests |= quantities({**own.limits, **own.requests})
    limits = qos.totals([each.limits for each in has], everywhere=True) | quantities(own.limits)
    shown: Json = ({"limits": limits} if limits else {}) | ({"requests": requests} if requests else {})
    return ({"allocatedResources": allocated} if allocated else {}) | {"resources": shown}
