"""Which CPUs containers are promised: they have them until their pods end, however often they start again.

Where they have to be near other resources, or whole cores, they are promised when the pods are let in; where nothing asks for
that, when the containers are made first. Pure, but for what it remembers. Rules are the kubelet's
(pkg/kubelet/cm/cpumanager/policy_static.go).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet import cpuoptions, cputopology, qos
from minikube_raw.kubelet.cpuplacement import Placement
from minikube_raw.kubelet.cputopology import CPU, CPUs
from minikube_raw.kubelet.measures import Attempts
from minikube_raw.kubelet.numa import Nodes
from minikube_raw.kubelet.pods import all_containers, is_sidecar
from minikube_raw.kubelet.topologyhints import Hint, Hints, Misplaced, sets_of

_CPU = "cpu"


class Misaligned(Misplaced):
    """A container would share a core with another one."""

    def __init__(self, why: str) -> None:
        super().__init__("SMTAlignmentError", f"SMT Alignment Error: {why}")


class CPUPromises:
    """Of one node's CPUs but the reserved ones: see topologymanager.Provider.

    By the options: of no core only a part (full-pcpus-only); the NUMA nodes of a socket are as good as one, and sockets have
    such nodes (align-by-socket). `ahead`: CPUs are promised when pods are let in, else when containers are made.
    """

    def __init__(
        self, topology: Sequence[CPU], reserved: CPUs, options: Collection[str] = (), *, ahead: bool = True
    ) -> None:
        self._ahead = ahead
        self._topology, self._by_socket = topology, cpuoptions.BY_SOCKET in options
        self._placement = Placement(topology, options)
        whole_cores = cpuoptions.WHOLE_CORES in options
        if whole_cores:
            reserved = cputopology.siblings(topology, reserved)
        self._threads = cputopology.threads(topology) if whole_cores else 1
        self._all = frozenset(cpu.number for cpu in topology) - reserved
        self._promised: dict[str, dict[str, CPUs]] = {}  # by pod uid and container
        self.attempts = Attempts()  # to give a container CPUs

    @property
    def given(self) -> CPUs:
        """Those that somebody was promised."""
        return frozenset[int]().union(*(cpus for own in self._promised.values() for cpus in own.values()))

    @property
    def free(self) -> CPUs:
        """Those that nobody was promised."""
        return self._all - self.given

    def of(self, uid: str, container: str) -> CPUs | None:
        """What a container was promised."""
        return self._promised.get(uid, {}).get(container)

    def keep(self, uid: str, container: str, cpus: CPUs) -> None:
        """A container has these, as long as its pod is here."""
        self._promised.setdefault(uid, {})[container] = cpus

    def hints(self, pod: Pod, container: Container | None) -> Hints:
        """On which NUMA nodes a container's own CPUs could be, or those of a whole pod."""
        every = all_containers(pod) if container is None else (container,)
        count = whole_cpus(pod, container.name) if container is not None else _whole_cpus_of_all(pod)
        if not count:
            return {}
        own = self._promised.get(pod.metadata.uid, {})
        had = {each.name: own[each.name] for each in every if each.name in own}
        if any(len(cpus) != whole_cpus(pod, name) for name, cpus in had.items()):
            return {_CPU: ()}
        assigned = frozenset[int]().union(*had.values())
        if len(assigned) == count:
            return {_CPU: self._hints(assigned, frozenset(), count)}
        return {_CPU: self._hints(self.free, self._reusable(pod, container) | assigned, count)}

    def allocate(self, pod: Pod, container: Container, affinity: Hint) -> None:
        """Promise a container its CPUs. Raises ValueError."""
        count, own = whole_cpus(pod, container.name), self._promised.setdefault(pod.metadata.uid, {})
        if not self._ahead or not count or container.name in own:
            return
        with self.attempts:
            free = self.free | self._reusable(pod, container)
            self._check_cores(count, len(free))
            own[container.name] = self._placement.take_near(free, count, self._near(affinity.nodes))

    def take(self, pod: Pod, name: str, idle: CPUs, preferred: CPUs) -> CPUs:
        """The CPUs of a container that is made now, of the `idle` ones, on which none runs alone. Raises ValueError.

        They are those that it was promised, else it is promised them now. An init container has them only until it ends, and
        first those of its pod's containers that wait for it.
        """
        promised = self.of(pod.metadata.uid, name)
        if promised is not None:
            return self._placement.take(promised & idle, len(promised))
        count, container = whole_cpus(pod, name), next(each for each in all_containers(pod) if each.name == name)
        reusable = self._reusable(pod, container) & idle
        free = self.free & idle | reusable
        with self.attempts:
            if _passes(pod, container):
                return self._placement.take_first(reusable, free, count)
            chosen = self._placement.take(free, count, preferred)
        for each in filter(
            lambda init: _passes(pod, init), pod.spec.init_containers
        ):  # kept if a kubelet came meanwhile
            self._promised.get(pod.metadata.uid, {}).pop(each.name, None)
        self.keep(pod.metadata.uid, name, chosen)
        return chosen

    def _near(self, nodes: Nodes | None) -> Nodes | None:
        if nodes is None or not self._by_socket:
            return nodes
        sockets = cputopology.sockets_of(self._topology, nodes)
        return frozenset(cpu.node for cpu in self._topology if cpu.socket in sockets)

    def _check_cores(self, count: int, free: int) -> None:
        if self._threads == 1:
            return
        if count % self._threads:
            raise Misaligned(f"requested {count} cpus not multiple cpus per core = {self._threads}")
        if count > free:
            raise Misaligned(
                f"not enough free physical CPUs: available physical CPUs = {free}, requested CPUs = {count},"
                f" CPUs per core = {self._threads}"
            )

    def release(self, uid: str) -> None:
        """What a pod was promised is nobody's again, once its containers have ended."""
        self._promised.pop(uid, None)

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Only these pods are on the node."""
        self._promised = {uid: own for uid, own in self._promised.items() if uid in uids}

    def _reusable(self, pod: Pod, container: Container | None) -> CPUs:
        """What other containers of the pod have that do not run beside this one: init containers have ended when others begin."""
        own, none = self._promised.get(pod.metadata.uid, {}), frozenset[int]()
        others = {each.name for each in pod.spec.init_containers if _passes(pod, each)}
        if container is not None and _passes(pod, container):
            others |= {each.name for each in pod.spec.containers}
        had = none.union(*(cpus for name, cpus in own.items() if name in others))
        return had.difference(*(cpus for name, cpus in own.items() if name not in others))

    def _hints(self, available: CPUs, reusable: CPUs, count: int) -> list[Hint]:
        """Preferred are the fewest nodes that ever could have so many; what is used again must be on them."""
        nodes = {cpu.number: cpu.node for cpu in self._topology}
        fewest, possible = len(set(nodes.values())), list[Nodes]()
        for those in sets_of(set(nodes.values())):
            if sum(node in those for node in nodes.values()) >= count:
                fewest = min(fewest, len(those))
            found = sum(nodes[cpu] in those for cpu in available) + len(reusable)
            if found >= count and all(nodes[cpu] in those for cpu in reusable):
                possible.append(those)
        return [Hint(those, len(those) == fewest or self._is_aligned(those, fewest)) for those in possible]

    def _is_aligned(self, nodes: Nodes, fewest: int) -> bool:
        """By sockets: whether the nodes are on no more sockets than the fewest nodes need."""
        if not self._by_socket:
            return False
        per_socket = len({cpu.node for cpu in self._topology}) // len({cpu.socket for cpu in self._topology})
        return len(cputopology.sockets_of(self._topology, nodes)) == math.ceil(fewest / per_socket)


def _passes(pod: Pod, container: Container) -> bool:
    """Whether a container ends before its pod's others begin."""
    return container in pod.spec.init_containers and not is_sidecar(container)


def whole_cpus(pod: Pod, name: str) -> int:
    """How many CPUs a container has for itself; 0: it shares."""
    spec = next((each for each in (*pod.spec.init_containers, *pod.spec.containers) if each.name == name), None)
    return _whole(qos.requests_of(spec)) if spec is not None and _has_whole_cpus(pod) else 0


def _whole_cpus_of_all(pod: Pod) -> int:
    """How many CPUs a pod's containers have for themselves at the most, at a time."""
    return qos.pod_amount(pod, _whole, limits=False) if _has_whole_cpus(pod) else 0


def _has_whole_cpus(pod: Pod) -> bool:
    """Whether containers may have CPUs alone: those that share what their pod asks for as a whole have none."""
    return pod.spec.resources is None and qos.qos_class(pod) is qos.QOSClass.GUARANTEED


def _whole(amounts: qos.Amounts) -> int:
    millis = qos.milli_cpu(amounts)
    return millis // 1000 if millis % 1000 == 0 else 0
