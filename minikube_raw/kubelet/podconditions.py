"""The kubelet's own conditions of a pod, in its order and words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import timestamp
from minikube_raw.kubelet.circumstances import Circumstances
from minikube_raw.kubelet.containerstatus import without_empty
from minikube_raw.kubelet.pods import is_sidecar
from minikube_raw.kubelet.restarts import could_restart_all
from minikube_raw.kubelet.syncpod import Found, Health, coming_phase, init_succeeded

Json = dict[str, Any]


def conditions(
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
        *_all_restarting(pod, phase, around),
    ]
    if around.ending is not None and around.terminated:
        own += [_given(each) for each in around.ending.conditions]
    before = {each["type"]: each for each in previous.get("conditions", ())}
    return [_condition(pod, each, before, around.now) for each in own]


def _all_restarting(pod: Pod, phase: str, around: Circumstances) -> Iterable[tuple[str, bool, str, str]]:
    """AllContainersRestarting, which pods have that ask for RestartAllContainers."""
    if not could_restart_all(pod):
        return
    if phase in ("Succeeded", "Failed"):
        yield "AllContainersRestarting", False, "PodCompleted" if phase == "Succeeded" else "PodFailed", ""
    elif around.restarting:
        why = "RestartAllContainersStarted", "container exited with restart policy rule"
        yield "AllContainersRestarting", True, *why
    else:
        yield "AllContainersRestarting", False, "", ""


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
    return shown | without_empty({"reason": reason, "message": message})


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
    gates = [gate.condition_type for gate in pod.spec.readiness_gates]
    why = [_closed(gate, status.get(gate)) for gate in gates if status.get(gate) != "True"]
    return (False, "ReadinessGatesNotReady", ", ".join(why)) if why else ready


def _closed(gate: str, status: str | None) -> str:
    if status is None:
        return f'corresponding condition of pod readiness gate "{gate}" does not exist.'
    return f'the status of pod readiness gate "{gate}" is not "True", but {status}'
