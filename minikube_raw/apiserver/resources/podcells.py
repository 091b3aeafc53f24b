"""The columns of `kubectl get pods` (printers.printPod, v1.36)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from minikube_raw.api import ages, pod_summary

from .strategy import AGE_COLUMN, NAME_COLUMN, Column, Object

COLUMNS = (
    NAME_COLUMN,
    Column("Ready", description="The aggregate readiness state of this pod for accepting traffic."),
    Column("Status", description="The aggregate status of the containers in this pod."),
    Column("Restarts", description="How often containers were restarted, and when the last time was."),
    AGE_COLUMN,
    Column("IP", description="IP address allocated to the pod.", priority=1),
    Column("Node", description="Name of the node the pod is scheduled on.", priority=1),
    Column("Nominated Node", description="Node that may be used for this pod once preemption has ended.", priority=1),
    Column("Readiness Gates", description="Conditions, besides containers' readiness, that the pod waits for.", priority=1),
)  # fmt: skip
NONE = "<none>"


def cells(pod: Object, now: datetime) -> list[Any]:
    """Return the row of a pod."""
    spec, status, metadata = pod.get("spec", {}), pod.get("status", {}), pod["metadata"]
    summary = pod_summary.of(pod, now)
    return [
        metadata["name"],
        summary.ready,
        summary.status,
        summary.restarts,
        ages.age(metadata.get("creationTimestamp"), now),
        _first_ip(status),
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _gates(spec, status),
    ]


def conditions(pod: Object) -> list[dict[str, str]]:
    """Return the row's conditions, by which kubectl greys out finished pods."""
    phase = pod.get("status", {}).get("phase")
    if phase == "Succeeded":
        return [_completed("Succeeded", "The pod has completed successfully.")]
    if phase == "Failed":
        return [_completed("Failed", "The pod failed.")]
    return []


def _completed(reason: str, message: str) -> dict[str, str]:
    return {"type": "Completed", "status": "True", "reason": reason, "message": message}


def _first_ip(status: Object) -> str:
    addresses = status.get("podIPs") or []
    return (addresses[0].get("ip") if addresses else status.get("podIP")) or NONE


def _gates(spec: Object, status: Object) -> str:
    gates = spec.get("readinessGates", [])
    if not gates:
        return NONE
    met = sum(pod_summary.condition(status, gate.get("conditionType", "")) == "True" for gate in gates)
    return f"{met}/{len(gates)}"
