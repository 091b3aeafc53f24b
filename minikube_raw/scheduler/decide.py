"""One decision: the node a pod gets, or why it gets none. Pure: filters and scores over a snapshot, nothing is written.

In a big cluster not every node is looked at: like kube-scheduler it stops when enough suitable nodes were found, and
starts the next search where this one ended, so that all nodes have their turn.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from minikube_raw.scheduler import scores
from minikube_raw.scheduler.filters import Failure, first_failure
from minikube_raw.scheduler.podinfo import PodInfo
from minikube_raw.scheduler.snapshot import NodeInfo

_ENOUGH_NODES = 100
_LEAST_PERCENT = 5


class Unschedulable(NamedTuple):
    """No node will do. `message` is what condition and Event say, `plugins` are the filters that refused."""

    message: str
    plugins: frozenset[str]


class Decision(NamedTuple):
    """A pod's node, or None and why not; `examined` nodes were looked at."""

    node: str | None
    unschedulable: Unschedulable | None
    examined: int


# A filter of one pod only: what its volumes say about a node.
NodeCheck = Callable[[NodeInfo], Failure | None]


def decide(
    pod: PodInfo, nodes: list[NodeInfo], *, start: int = 0, rng: random.Random, last: NodeCheck | None = None
) -> Decision:
    """Choose among `nodes`, searching from index `start` on; equal scores are broken by `rng`. `last` is one more filter."""
    feasible: list[NodeInfo] = []
    failures: list[Failure] = []
    wanted = enough(len(nodes))
    for offset in range(len(nodes)):
        node = nodes[(start + offset) % len(nodes)]
        failure = first_failure(pod, node)
        if failure is None and last is not None:
            failure = last(node)
        if failure is not None:
            failures.append(failure)
            continue
        feasible.append(node)
        if len(feasible) >= wanted:
            break
    examined = len(feasible) + len(failures)
    if not feasible:
        return Decision(None, explain(failures), examined)
    return Decision(_best(pod, feasible, rng).name, None, examined)


def refuse_everywhere(reason: str, plugin: str, nodes: int) -> Unschedulable:
    """Return what kube-scheduler says of a pod for which no node needs to be looked at (a PreFilter's refusal, v1.36)."""
    return Unschedulable(f"0/{nodes} nodes are available: {reason}. not found", frozenset((plugin,)))


def enough(nodes: int) -> int:
    """Return how many suitable nodes are enough: all up to 100, then a share that falls from 50 % to 5 %."""
    if nodes < _ENOUGH_NODES:
        return nodes
    percent = max(50 - nodes // 125, _LEAST_PERCENT)
    return max(nodes * percent // 100, _ENOUGH_NODES)


def explain(failures: list[Failure]) -> Unschedulable:
    """Return what kube-scheduler says when no node will do (framework.FitError and DefaultPreemption, v1.36)."""
    plugins = frozenset(failure.plugin for failure in failures)
    if not failures:
        return Unschedulable("no nodes available to schedule pods", plugins)
    total = len(failures)
    reasons = Counter(reason for failure in failures for reason in failure.reasons)
    helpless = Counter(
        "No preemption victims found for incoming pod"
        if failure.resolvable
        else "Preemption is not helpful for scheduling"
        for failure in failures
    )
    message = (
        f"0/{total} nodes are available: {_counted(reasons)}. no new claims to deallocate, "
        f"preemption: 0/{total} nodes are available: {_counted(helpless)}."
    )
    return Unschedulable(message, plugins)


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))


def _best(pod: PodInfo, feasible: list[NodeInfo], rng: random.Random) -> NodeInfo:
    if len(feasible) == 1:
        return feasible[0]
    points = scores.total(pod, feasible)
    most = max(points)
    return rng.choice([node for node, score in zip(feasible, points, strict=True) if score == most])
