"""Whom a node ends so that a critical pod has room: the least important classes, the fewest pods, the smallest.

Pure. Rules and words are the kubelet's (pkg/kubelet/preemption/preemption.go): guaranteed pods go only for what all others
together could not give, burstable ones only for what best-effort ones could not; within a class the pod that comes nearest to
what is missing goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.pods import is_critical

PREEMPTING = "Preempting"
MESSAGE = "Preempted in order to admit critical pod"
_CONDITION = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "TerminationByKubelet",
    "message": "Pod was preempted by Kubelet to accommodate a critical pod.",
}
PREEMPTED = Ending(PREEMPTING, MESSAGE, conditions=(_CONDITION,))
Amounts = Mapping[str, int]


class Held(msgspec.Struct, frozen=True):
    """The room of a pod, computed once: amounts by resource (thousandths of CPUs, else whole units), ports of the node."""

    pod: Pod
    amounts: Amounts
    ports: tuple[tuple[str, str, int], ...] = ()

    def of(self, name: str) -> int:
        """How much of a resource it has; of "pods" each is one."""
        return 1 if name == "pods" else self.amounts.get(name, 0)


class NothingToPreempt(Exception):
    """All that may go would not be enough."""


def choose(wish: Pod, others: Iterable[Held], missing: Amounts) -> list[Held]:
    """The pods that go for `wish`, which is critical, to free what is missing. Raises NothingToPreempt."""
    classes: dict[qos.QOSClass, list[Held]] = {each: [] for each in qos.QOSClass}
    for other in others:
        if _may_go(wish, other.pod):
            classes[qos.qos_class(other.pod)].append(other)
    best_effort, burstable = classes[qos.QOSClass.BEST_EFFORT], classes[qos.QOSClass.BURSTABLE]
    guaranteed = _nearest(classes[qos.QOSClass.GUARANTEED], _left(missing, [*best_effort, *burstable]))
    burstable = _nearest(burstable, _left(missing, [*best_effort, *guaranteed]))
    return [*_nearest(best_effort, _left(missing, [*burstable, *guaranteed])), *burstable, *guaranteed]


def _may_go(wish: Pod, other: Pod) -> bool:
    return not is_critical(other) or wish.spec.priority > other.spec.priority


def _nearest(pods: Sequence[Held], missing: Amounts) -> list[Held]:
    """Of one class, those that bring what is missing, one after the other."""
    left, gone = list(pods), list[Held]()
    while missing:
        if not left:
            text = "".join(f"(res: {name}, q: {amount}), " for name, amount in missing.items())
            raise NothingToPreempt(f"no set of running pods found to reclaim resources: [{text}]")
        first = min(left, key=lambda each: (_distance(each, missing), each.of("memory"), each.of("cpu")))
        left.remove(first)
        gone.append(first)
        missing = _left(missing, [first])
    return gone


def _distance(pod: Held, missing: Amounts) -> float:
    """How far a pod is from giving all that is missing: each resource counts by the share it leaves open."""
    return float(sum((max(amount - pod.of(name), 0) / amount) ** 2 for name, amount in missing.items()))


def _left(missing: Amounts, pods: Iterable[Held]) -> dict[str, int]:
    """What is still missing without some pods."""
    pods = list(pods)
    left = {name: amount - sum(pod.of(name) for pod in pods) for name, amount in missing.items()}
    return {name: amount for name, amount in left.items() if amount > 0}
