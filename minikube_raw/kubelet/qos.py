"""From requests and limits to the kernel's terms: QoS class, cgroup parents, shares, quotas. See oomscore for oom_score_adj.

Pure. The formulas are the kubelet's (pkg/kubelet/cm/helpers_linux.go, pkg/kubelet/qos/policy.go); the values were
compared with what a real kubelet wrote into cgroup files.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

import msgspec

from minikube_raw.api import quantity
from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet.pods import all_containers, is_critical, is_sidecar
from minikube_raw.runtime.cri import LinuxContainerResources

MIN_SHARES = 2
MAX_SHARES = 262_144
SHARES_PER_CPU = 1024
PERIOD_US = 100_000
MIN_QUOTA_US = 1_000
MEMORY_THROTTLING_FACTOR = 0.9  # of the way from request to limit, where memory.high begins to slow a container down
PAGE = 4096

Amounts = Mapping[str, str | int | float]


class QOSClass(enum.StrEnum):
    """PodQOSClass."""

    GUARANTEED = "Guaranteed"
    BURSTABLE = "Burstable"
    BEST_EFFORT = "BestEffort"


_RESERVATIONS = {QOSClass.GUARANTEED: "memory.min", QOSClass.BURSTABLE: "memory.low"}


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


class Kernel(msgspec.Struct, frozen=True):
    """What the node's kernel and options decide for every container."""

    oom_group: bool = False  # v2: a container that runs out of memory ends as a whole
    memory_qos: bool = False  # v2: use is slowed down before the limit kills
    reserves_memory: bool = False  # v2: requests are kept from reclaim, those of guaranteed pods at any price
    swap: int | None = None  # v2: bytes of swap that burstable pods share by their requests (LimitedSwap), 0: NoSwap
    memory: int = 0  # bytes of the node
    allocatable: int = 0  # bytes of it that are for pods
    hugepage_sizes: tuple[str, ...] = ()  # sizes the node has pages of, as resources name them: "2Mi"


PLAIN = Kernel()


def container_resources(
    pod: Pod, container: Container, oom_score_adj: int, kernel: Kernel = PLAIN
) -> LinuxContainerResources:
    """The limits of one container's cgroup; what it does not limit itself is limited by the pod's own limits.

    Such a limit also is its request, as far as shares go: so a container that says nothing has the pod's limit as shares.
    """
    limits = container_limits(pod, container)
    requests = {**limits, **container.resources.requests}
    return LinuxContainerResources(
        cpu_shares=cpu_shares(milli_cpu(requests)),
        cpu_period=PERIOD_US,
        cpu_quota=cpu_quota(milli_cpu(limits)),
        memory_limit_in_bytes=memory_bytes(limits) or None,
        oom_score_adj=oom_score_adj,
        hugepage_limits={_kernel_size(size): _huge_bytes(limits, size) for size in kernel.hugepage_sizes},
        unified={
            **({"memory.oom.group": "1"} if kernel.oom_group else {}),
            **_reserved(qos_class(pod), memory_bytes(requests_of(container)), kernel),
            **_throttled(memory_bytes(requests_of(container)), memory_bytes(limits), kernel),
            **_swap(pod, container, kernel),
        },
    )


def container_limits(pod: Pod, container: Container) -> dict[str, str | int | float]:
    """A container's own limits over those of its pod (spec.resources)."""
    own = {name: amount for name, amount in container.resources.limits.items() if quantity.parse(amount)}
    return {**(pod.spec.resources.limits if pod.spec.resources is not None else {}), **own}


def _reserved(klass: QOSClass, request: int, kernel: Kernel) -> dict[str, str]:
    """KEP-2570, TieredReservation: what is asked for is not reclaimed, or (burstable) only when nothing else is left."""
    file = _RESERVATIONS.get(klass)
    return {file: str(request)} if kernel.reserves_memory and request and file else {}


def _throttled(request: int, limit: int, kernel: Kernel) -> dict[str, str]:
    """KEP-2570: from memory.high on, part of the way from request to limit (the node's, without one), use is slowed down."""
    most = limit or kernel.allocatable
    if not kernel.memory_qos or most <= request:
        return {}
    return {"memory.high": str(int(request + MEMORY_THROTTLING_FACTOR * (most - request)) // PAGE * PAGE)}


def _swap(pod: Pod, container: Container, kernel: Kernel) -> dict[str, str]:
    """KEP-2400: under LimitedSwap a burstable container has the share of the node's swap that it asks of its memory."""
    if kernel.swap is None:
        return {}
    request, limit = memory_bytes(container.resources.requests), memory_bytes(container.resources.limits)
    barred = is_critical(pod) or qos_class(pod) is not QOSClass.BURSTABLE or request == limit
    return {"memory.swap.max": "0" if barred or not kernel.memory else str(kernel.swap * request // kernel.memory)}


def _kernel_size(size: str) -> str:
    """The kernel's name for a page size: 2Mi is 2MB in hugetlb's files."""
    return size.replace("i", "B")


def _huge_bytes(limits: Amounts, size: str) -> int:
    return quantity.resource(limits, f"hugepages-{size}").value()


def pod_resources(pod: Pod, pids_limit: int | None = None, kernel: Kernel = PLAIN) -> LinuxContainerResources:
    """The limits of the pod's own cgroup: sums, where every container has a limit, and the runtime's overhead."""
    # Overhead alone weighs nothing: whoever asks for nothing gets what is left.
    asked = 0 if qos_class(pod) is QOSClass.BEST_EFFORT else pod_request(pod, milli_cpu)
    return LinuxContainerResources(
        cpu_shares=cpu_shares(asked),
        cpu_period=PERIOD_US,
        cpu_quota=cpu_quota(pod_limit(pod, milli_cpu) or 0),
        memory_limit_in_bytes=pod_limit(pod, memory_bytes),
        pids_limit=pids_limit,
        hugepage_limits={_kernel_size(size): _pod_huge_bytes(pod, size) for size in kernel.hugepage_sizes},
        unified={
            **_reserved(qos_class(pod), pod_request(pod, memory_bytes), kernel),
            # A cgroup with a memory limit has no swap unless it is told, and its containers none then.
            **({"memory.swap.max": "max"} if kernel.swap else {}),
        },
    )


def _pod_huge_bytes(pod: Pod, size: str) -> int:
    own = _huge_bytes(pod.spec.resources.limits, size) if pod.spec.resources is not None else 0
    return own or pod_amount(pod, lambda amounts: _huge_bytes(amounts, size), limits=True)


def pod_request(pod: Pod, amount: Callable[[Amounts], int]) -> int:
    """What the pod asks of the node: for itself (spec.resources) or through its containers, with its overhead."""
    own = pod.spec.resources
    asked = pod_amount(pod, amount, limits=False)
    if own is not None:
        asked = amount(own.requests) or asked or amount(own.limits)
    return asked + amount(pod.spec.overhead)


def pod_limit(pod: Pod, amount: Callable[[Amounts], int]) -> int | None:
    """The sum of limits and the overhead, or None when a container has none (then the pod has none)."""
    limit = amount(pod.spec.resources.limits) if pod.spec.resources is not None else 0
    if not limit:
        if not all(amount(each.resources.limits) for each in all_containers(pod)):
            return None
        limit = pod_amount(pod, amount, limits=True)
    return limit + amount(pod.spec.overhead) if limit else None


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
