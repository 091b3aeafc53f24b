"""Scores: which of the nodes a pod may run on suits it best? Pure functions, each 0 to 100 per node, then weighted.

The weights are kube-scheduler's defaults; spreading counts the pods of the same owner per node, which is what its
system-default constraints come to for replicas of one controller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minikube_raw.api.core import Taint
from minikube_raw.api.tolerations import tolerates
from minikube_raw.scheduler.podinfo import CPU, MEMORY, PodInfo
from minikube_raw.scheduler.snapshot import NodeInfo

MAX = 100
_MEGABYTE = 1 << 20
# Images below the first size do not matter, above the second they do not matter more (imagelocality).
_IMAGE_MIN, _IMAGE_MAX = 23 * _MEGABYTE, 1000 * _MEGABYTE

Scores = list[float]


def least_allocated(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Scores:
    """Prefer nodes with much cpu and memory left: the mean of both free shares."""
    return [sum(max(0.0, 1 - share) for share in _shares(pod, node)) * MAX / 2 for node in nodes]


def balanced_allocation(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Scores:
    """Prefer nodes whose cpu and memory fill up alike: 100 less half their shares' difference."""
    scores = []
    for node in nodes:
        cpu, memory = (min(share, 1.0) for share in _shares(pod, node))
        scores.append((1 - abs(cpu - memory) / 2) * MAX)
    return scores


def spreading(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Scores:
    """Prefer nodes with few pods of the same controller."""
    counts = [node.owners.get(pod.owner, 0) if pod.owner else 0 for node in nodes]
    return _fewest(counts)


def taint_toleration(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Scores:
    """Prefer nodes with few PreferNoSchedule taints that the pod does not stand."""
    return _fewest([sum(1 for taint in node.taints if _unwelcome(pod, taint)) for node in nodes])


def node_affinity(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Scores:
    """Prefer nodes that match the preferred terms, by weight."""
    if not pod.affinity.preferred:
        return [0.0] * len(nodes)
    weights = [pod.affinity.preference(node.name, node.labels) for node in nodes]
    most = max(weights)
    return [weight * MAX / most if most else 0.0 for weight in weights]


def image_locality(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Scores:
    """Prefer nodes that hold the pod's big images already, less so where few nodes hold them."""
    total = len(nodes)
    holders = {image: sum(1 for node in nodes if image in node.images) for image in pod.images}
    low, high = _IMAGE_MIN, _IMAGE_MAX * max(len(pod.images), 1)
    scores = []
    for node in nodes:
        present = sum(node.images.get(image, 0) * holders[image] / total for image in pod.images)
        scores.append((min(max(present, low), high) - low) * MAX / (high - low))
    return scores


SCORES: tuple[tuple[str, int, Callable[[PodInfo, Sequence[NodeInfo]], Scores]], ...] = (
    ("NodeResourcesFit", 1, least_allocated),
    ("NodeResourcesBalancedAllocation", 1, balanced_allocation),
    ("PodTopologySpread", 2, spreading),
    ("TaintToleration", 3, taint_toleration),
    ("NodeAffinity", 2, node_affinity),
    ("ImageLocality", 1, image_locality),
)


def total(pod: PodInfo, nodes: Sequence[NodeInfo]) -> list[int]:
    """Return the weighted sum per node."""
    sums = [0] * len(nodes)
    for _, weight, score in SCORES:
        for index, points in enumerate(score(pod, nodes)):
            sums[index] += int(points) * weight
    return sums


def _shares(pod: PodInfo, node: NodeInfo) -> tuple[float, float]:
    """Return the shares of cpu and memory in use once the pod is there; a node without any counts as full."""
    cpu, memory = node.allocatable.get(CPU, 0), node.allocatable.get(MEMORY, 0)
    return (
        (node.scored_cpu + pod.scored_cpu) / cpu if cpu else 1.0,
        (node.scored_memory + pod.scored_memory) / memory if memory else 1.0,
    )


def _unwelcome(pod: PodInfo, taint: Taint) -> bool:
    return taint.effect == "PreferNoSchedule" and not tolerates(pod.tolerations, taint)


def _fewest(counts: Sequence[int]) -> Scores:
    most = max(counts, default=0)
    return [(most - count) * MAX / most if most else float(MAX) for count in counts]
