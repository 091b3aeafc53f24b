"""Whom a node that is short of something evicts, and what it says: order and words are the kubelet's.

Pure. Pods that use more than they asked for go first, then those of lower priority, then those that exceed most
(pkg/kubelet/eviction/helpers.go: rankMemoryPressure, rankDiskPressureFunc, rankPIDPressure). Critical pods never go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from minikube_raw.api import quantity
from minikube_raw.api.core import Pod
from minikube_raw.api.quantity import Quantity
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.pods import is_critical
from minikube_raw.kubelet.thresholds import Met

EVICTED = "Evicted"
_IMMEDIATE_GRACE = 1  # seconds
_COUNTED = ("inodes", "pids")  # not bytes
_REQUESTED = {"memory": "memory", "ephemeral-storage": "ephemeral-storage"}


class Candidate(msgspec.Struct, frozen=True):
    """A pod with what it uses of the resource in question, as a whole and by container."""

    pod: Pod
    used: int
    containers: Mapping[str, int] = {}


def choose(candidates: Iterable[Candidate], resource: str) -> Candidate | None:
    """The pod to evict first for a resource; None when there is none to evict."""
    evictable = [each for each in candidates if not is_critical(each.pod)]
    return min(evictable, key=lambda each: _order(each, resource), default=None)


def _order(candidate: Candidate, resource: str) -> tuple[bool, int, int]:
    if resource not in _REQUESTED:
        return False, candidate.pod.spec.priority, -candidate.used
    beyond = candidate.used - _requested(candidate.pod, resource)
    return beyond <= 0, candidate.pod.spec.priority, -beyond


def _requested(pod: Pod, resource: str) -> int:
    return qos.pod_request(pod, lambda amounts: quantity.resource(amounts, resource).value())


def eviction(candidate: Candidate, met: Met, grace: int) -> Ending:
    """How the chosen pod ends; `grace` in seconds counts where the threshold is a soft one."""
    counted = quantity.DECIMAL_SI if met.resource in _COUNTED else quantity.BINARY_SI
    message = f"The node was low on resource: {met.resource}. "
    message += f"Threshold quantity: {met.text or _shown(met.quantity)}, available: {_shown(met.available, counted)}. "
    for container in candidate.pod.spec.containers:
        used = candidate.containers.get(container.name, 0)
        asked = quantity.resource(container.resources.requests, met.resource)
        if used > asked.value():
            message += f"Container {container.name} was using {_shown(used)}, request is {asked}, "
            message += f"has larger consumption of {met.resource}. "
    target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": message}
    return Ending(EVICTED, message, _IMMEDIATE_GRACE if met.hard else grace, (target,))


def _shown(amount: int, form: str = quantity.BINARY_SI) -> str:
    return str(Quantity(amount * quantity.NANO, form))
