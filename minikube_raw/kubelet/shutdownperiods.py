"""How long pods have to end when their machine shuts down, by their priority, and in which order they go. Pure.

Rules are the kubelet's (KEP-2000, KEP-2712; pkg/kubelet/nodeshutdown): a pod belongs to the last period whose priority is not
above its own, or to the first one; periods follow each other from the lowest priority up, and each ends when its pods have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.kubelet.pods import SYSTEM_CRITICAL
from minikube_raw.kubelet.reserved import duration


class Period(msgspec.Struct, frozen=True):
    """Pods from a priority on, and the whole seconds that they have."""

    priority: int
    seconds: int


def periods(whole: float, critical: float, by_priority: Mapping[str, str]) -> tuple[Period, ...]:
    """The periods of a node, the lowest priority first; none: it does not delay shutdowns.

    shutdownGracePeriod is the time of all pods, of which shutdownGracePeriodCriticalPods is kept for critical ones, in seconds;
    shutdownGracePeriodByPodPriority says the same in detail: durations ("1m30s") by priority. Raises ValueError.
    """
    if by_priority:
        if whole or critical:
            raise ValueError("cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod")
        found = (Period(int(priority), int(duration(text))) for priority, text in by_priority.items())
        return tuple(sorted(found, key=lambda period: period.priority))
    if critical > whole:
        raise ValueError("shutdownGracePeriodCriticalPods must be <= shutdownGracePeriod")
    for name, seconds in (("shutdownGracePeriod", whole), ("shutdownGracePeriodCriticalPods", critical)):
        if seconds < 0 or 0 < seconds < 1:
            raise ValueError(f"{name} must be either zero or otherwise >= 1 sec")
    if not whole:
        return ()
    return Period(0, int(whole - critical)), Period(SYSTEM_CRITICAL, int(critical))


def phases(periods: Sequence[Period], pods: Iterable[Pod]) -> list[tuple[Period, list[Pod]]]:
    """Who goes in which period; those without a pod are left out."""
    parts: list[tuple[Period, list[Pod]]] = [(period, []) for period in periods]
    for pod in pods:
        own = [part for part in parts if part[0].priority <= pod.spec.priority] or parts[:1]
        own[-1][1].append(pod)
    return [part for part in parts if part[1]]


def grace(period: Period, pod: Pod) -> int:
    """The seconds between stop signal and kill: the pod's own where they are fewer."""
    return min(period.seconds, pod.spec.termination_grace_period_seconds)
