"""From requests and limits to the kernel's terms: QoS class, cgroup parents, shares, quotas, oom_score_adj.

Pure. The formulas are the kubelet's (pkg/kubelet/cm/helpers_linux.go, pkg/kubelet/qos/policy.go); the values were
compared with what a real kubelet wrote into cgroup files.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from minikube_raw.api import quantity
from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet.pods import all_containers, is_sidecar
from minikube_raw.runtime.cri import LinuxContainerResources

MIN_SHARES = 2
MAX_SHARES = 262_144
SHARES_PER_CPU = 1024
PERIOD_US = 100_000
MIN_QUOTA_US = 1_000
GUARANTEED_OOM_SCORE = -997
BEST_EFFORT_OOM_SCORE = 1000

Amounts = Mapping[str, str | int | float]


class QOSClass(enum.StrEnum):
    """PodQOSClass."""

    GUARANTEED = "Guaranteed"
    BURSTABLE = "Burstable"
    BEST_EFFORT = "BestEffort"


def milli_cpu(amounts: Amounts) -> int:
    """The cpu amount in thousandths of a CPU, rounded up; 0 when none is asked for."""
    return quantity.resource(amounts, "cpu").milli()


def memory_bytes(amounts: Amounts) -> int:
    """The memory amount in bytes, rounded up; 0 when none is asked for."""
    return quantity.resource(amounts, "memory").value()


def requests_of(container: Container) -> dict[str, str | int | float]:
    """Requests, where a limit without a request asks for as much (the API server defaults it so)."""
    return {**container.resources.limits, **container.resources.requests}


def qos_class(pod: Pod) -> QOSClass:
    """The class by which the kernel is told whom to kill first (k8s.io/kubernetes/pkg/apis/core/v1/helper/qos)."""
    containers = all_containers(pod)
    if pod.spec.resources is not None and (pod.spec.resources.limits or pod.spec.resources.requests):
        return _pod_level_class(pod)
    if not any(_asks(requests_of(each)) or _asks(each.resources.limits) for each in containers):
        return QOSClass.BEST_EFFORT
    return QOSClass.GUARANTEED if all(_is_guaranteed(each) for each in containers) else QOSClass.BURSTABLE


def cgroup_parent(pod: Pod) -> str:
    """The pod's cgroup below the node's: kubepods[/burstable|/besteffort]/pod<uid>."""
    return f"{parent_of_class(qos_class(pod))}/pod{pod.metadata.uid}"


def parent_of_class(klass: QOSClass) -> str:
    """The cgroup of all pods of a class; guaranteed pods lie directly in kubepods."""
    return "kubepods" if klass is QOSClass.GUARANTEED else f"kubepods/{klass.value.lower()}"


def cpu_shares(millis: int) -> int:
    """cgroup v1 cpu.shares for an amount of CPU; nothing asked for gets the least."""
    if millis == 0:
        return MIN_SHARES
    return min(max(millis * SHARES_PER_CPU // 1000, MIN_SHARES), MAX_SHARES)


def cpu_quota(millis: int) -> int | None:
    """µs of CPU time per period of 100 ms; None without a limit, never below a millisecond."""
    return max(millis * PERIOD_US // 1000, MIN_QUOTA_US) if millis else None


def oom_score_adj(pod: Pod, container: Container, capacity: int) -> int:
    """How willingly the kernel kills a container; `capacity` is the node's memory in bytes."""
    klass = qos_class(pod)
    if klass is QOSClass.GUARANTEED:
        return GUARANTEED_OOM_SCORE
    if klass is QOSClass.BEST_EFFORT:
        return BEST_EFFORT_OOM_SCORE
    score = 1000 - (1000 * memory_bytes(requests_of(container))) // max(capacity, 1)
    low, high = 1000 + GUARANTEED_OOM_SCORE, BEST_EFFORT_OOM_SCORE - 1
    return min(max(score, low), high)


def container_resources(pod: Pod, container: Container, capacity: int) -> LinuxContainerResources:
    """The limits of one container's cgroup."""
    limits = container.resources.limits
    return LinuxContainerResources(
        cpu_shares=cpu_shares(milli_cpu(requests_of(container))),
        cpu_period=PERIOD_US,
        cpu_quota=cpu_quota(milli_cpu(limits)),
        memory_limit_in_bytes=memory_bytes(limits) or None,
        oom_score_adj=oom_score_adj(pod, container, capacity),
    )


def pod_resources(pod: Pod, pids_limit: int | None = None) -> LinuxContainerResources:
    """The limits of the pod's own cgroup: sums, where every container has a limit."""
    cpu, memory = pod_amount(pod, milli_cpu, limits=False), pod_limit(pod, memory_bytes)
    return LinuxContainerResources(
        cpu_shares=cpu_shares(cpu),
        cpu_period=PERIOD_US,
        cpu_quota=cpu_quota(pod_limit(pod, milli_cpu) or 0),
        memory_limit_in_bytes=memory,
        pids_limit=pids_limit,
    )


def pod_limit(pod: Pod, amount: Callable[[Amounts], int]) -> int | None:
    """The sum of limits, or None when a container has none (then the pod has none)."""
    level = amount(pod.spec.resources.limits) if pod.spec.resources is not None else 0
    if level:
        return level
    if not all(amount(each.resources.limits) for each in all_containers(pod)):
        return None
    return pod_amount(pod, amount, limits=True) or None


def pod_amount(pod: Pod, amount: Callable[[Amounts], int], *, limits: bool) -> int:
    """What the pod needs at its widest: containers and sidecars, or the largest init container beside its sidecars."""

    def of(container: Container) -> int:
        return amount(container.resources.limits if limits else requests_of(container))

    sidecars = widest_init = 0
    for container in pod.spec.init_containers:
        if is_sidecar(container):
            sidecars += of(container)
        else:
            widest_init = max(widest_init, sidecars + of(container))
    return max(sidecars + sum(of(each) for each in pod.spec.containers), widest_init)


def _asks(amounts: Amounts) -> bool:
    return milli_cpu(amounts) > 0 or memory_bytes(amounts) > 0


def _is_guaranteed(container: Container) -> bool:
    requests, limits = requests_of(container), container.resources.limits
    return all(amount(limits) > 0 and amount(limits) == amount(requests) for amount in (milli_cpu, memory_bytes))


def _pod_level_class(pod: Pod) -> QOSClass:
    resources = pod.spec.resources
    if resources is None or not (_asks(resources.limits) or _asks(resources.requests)):
        return QOSClass.BEST_EFFORT
    requests = {**resources.limits, **resources.requests}
    equal = all(a(resources.limits) > 0 and a(resources.limits) == a(requests) for a in (milli_cpu, memory_bytes))
    return QOSClass.GUARANTEED if equal else QOSClass.BURSTABLE


def totals(amounts: list[Mapping[str, str | int | float]], *, everywhere: bool = False) -> dict[str, str]:
    """Sums by resource name; with `everywhere` only of resources that every one of them has."""
    names = dict.fromkeys(name for each in amounts for name in each)
    if everywhere:
        names = dict.fromkeys(name for name in names if all(name in each for each in amounts))
    return {name: str(sum((quantity.resource(each, name) for each in amounts), quantity.Quantity(0))) for name in names}
