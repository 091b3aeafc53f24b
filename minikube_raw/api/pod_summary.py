"""A pod in a word and two numbers, as kubectl and `pod list` show it: READY, STATUS, RESTARTS (printers.printPod, v1.36).

Pure, over pods as plain data.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from minikube_raw.api import ages

Object = dict[str, Any]


class Summary(msgspec.Struct, frozen=True):
    """What the columns say: `1/2`, `Init:0/1` or `CrashLoopBackOff`, `3 (20s ago)`."""

    ready: str
    status: str
    restarts: str


def of(pod: Object, now: datetime) -> Summary:
    """Sum up a pod with its status."""
    spec, status = pod.get("spec", {}), pod.get("status", {})
    init_reason = _init_reason(spec, status)
    if init_reason is None or condition(status, "Initialized") == "True":
        counted = _sidecar_statuses(spec, status) + status.get("containerStatuses", [])
        reason = _main_reason(pod, status)
    else:
        counted, reason = status.get("initContainerStatuses", []), init_reason
    total = len(spec.get("containers", [])) + sum(_is_sidecar(c) for c in spec.get("initContainers", []))
    ready = sum(1 for c in _ready_candidates(spec, status) if c.get("ready") and "running" in c.get("state", {}))
    return Summary(f"{ready}/{total}", _deletion_reason(pod, reason), _restarts(counted, now))


def condition(status: Object, kind: str) -> str:
    """Return the status of a condition: True, False or Unknown; "" without one."""
    return next((str(c.get("status")) for c in status.get("conditions", []) if c.get("type") == kind), "")


def _is_sidecar(container: Object) -> bool:
    return bool(container.get("restartPolicy") == "Always")


def _sidecar_statuses(spec: Object, status: Object) -> list[Object]:
    names = {c["name"] for c in spec.get("initContainers", []) if _is_sidecar(c)}
    return [c for c in status.get("initContainerStatuses", []) if c.get("name") in names]


def _ready_candidates(spec: Object, status: Object) -> list[Object]:
    main: list[Object] = status.get("containerStatuses", [])
    return _sidecar_statuses(spec, status) + main


def _init_reason(spec: Object, status: Object) -> str | None:
    """Return the status while init containers run, None when they are done."""
    sidecars = {c["name"] for c in spec.get("initContainers", []) if _is_sidecar(c)}
    for number, container in enumerate(status.get("initContainerStatuses", [])):
        state = container.get("state", {})
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        if container.get("name") in sidecars and container.get("started"):
            continue
        if terminated is not None:
            return f"Init:{_terminated_reason(terminated)}"
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{number}/{len(spec.get('initContainers', []))}"
    return None


def _main_reason(pod: Object, status: Object) -> str:
    reason: str = status.get("reason") or status.get("phase", "")
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    running = False
    for container in reversed(status.get("containerStatuses", [])):
        state = container.get("state", {})
        waiting, terminated = state.get("waiting"), state.get("terminated")
        if waiting is not None and waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated is not None:
            reason = _terminated_reason(terminated)
        elif container.get("ready") and "running" in state:
            running = True
    if reason == "Completed" and running:
        return "Running" if condition(status, "Ready") == "True" else "NotReady"
    return reason


def _terminated_reason(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _deletion_reason(pod: Object, reason: str) -> str:
    if not pod["metadata"].get("deletionTimestamp"):
        return reason
    if pod.get("status", {}).get("reason") == "NodeLost":
        return "Unknown"
    finished = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return reason if finished else "Terminating"


def _restarts(statuses: list[Object], now: datetime) -> str:
    count = sum(c.get("restartCount", 0) for c in statuses)
    ends = [c.get("lastState", {}).get("terminated", {}).get("finishedAt") for c in statuses]
    last = max((end for end in ends if end), default=None)
    return f"{count} ({ages.age(last, now)} ago)" if count and last else str(count)
