"""What controllers ask of a pod: is it active, ready, available; and which one goes first when there are too many."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from minikube_raw.api.core import Pod
from minikube_raw.api.meta import condition
from minikube_raw.client.clock import seconds_of

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def is_terminal(pod: Pod) -> bool:
    """Whether it has ended for good."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_active(pod: Pod) -> bool:
    """Whether it counts as a replica: neither ended nor on its way out."""
    return not is_terminal(pod) and pod.metadata.deletion_timestamp is None


def is_terminating(pod: Pod) -> bool:
    """Whether it is on its way out and has not ended yet."""
    return not is_terminal(pod) and pod.metadata.deletion_timestamp is not None


def is_ready(pod: Pod) -> bool:
    """Whether its Ready condition is True."""
    ready = condition(pod.status.conditions, "Ready")
    return ready is not None and ready.status == "True"


def available_in(pod: Pod, min_ready_seconds: int, now: float) -> float | None:
    """Return seconds until the pod counts as available (0: it does), None while it is not ready."""
    ready = condition(pod.status.conditions, "Ready")
    if ready is None or ready.status != "True":
        return None
    since = seconds_of(ready.last_transition_time)
    if min_ready_seconds <= 0 or since is None:
        return 0.0
    return max(since + min_ready_seconds - now, 0.0)


def to_delete(pods: Sequence[Pod], count: int, related: Iterable[Pod], now: float) -> list[Pod]:
    """Return the `count` pods whose loss matters least (controller_utils.go, ActivePodsWithRanks).

    First those without a node, not running, not ready, of low deletion cost, crowded on one node with `related` pods,
    ready for a short time, restarted often, young.
    """
    if count >= len(pods):
        return list(pods)
    crowd = Counter(pod.spec.node_name for pod in related if is_active(pod))
    return sorted(pods, key=lambda pod: _importance(pod, crowd[pod.spec.node_name], now))[:count]


def _importance(pod: Pod, crowd: int, now: float) -> tuple[float, ...]:
    return (
        bool(pod.spec.node_name),
        _PHASES.get(pod.status.phase, 0),
        is_ready(pod),
        _deletion_cost(pod),
        -crowd,
        _age_bucket(_ready_since(pod), now),
        -_restarts(pod),
        _age_bucket(seconds_of(pod.metadata.creation_timestamp), now),
    )


def _deletion_cost(pod: Pod) -> int:
    try:
        return int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


def _ready_since(pod: Pod) -> float | None:
    ready = condition(pod.status.conditions, "Ready")
    return seconds_of(ready.last_transition_time) if ready is not None and ready.status == "True" else None


def _age_bucket(since: float | None, now: float) -> float:
    """Ages on a logarithmic scale: among pods about as old as each other none is preferred (KEP-2185)."""
    return 0.0 if since is None else math.floor(math.log2(max(now - since, 1.0)))


def _restarts(pod: Pod) -> int:
    return max((status.restart_count for status in pod.status.container_statuses), default=0)
