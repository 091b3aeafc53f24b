"""Whether a pod that was bound to this node fits on it: resources, ports, labels and taints, and the node's pressures.

The scheduler has asked the same before, but not for pods with a nodeName of their own, and not of this moment's node. A pod
that was admitted once (also by a kubelet before this one) stays so. Words are the kubelet's (pkg/kubelet/lifecycle/predicate.go,
pkg/kubelet/eviction/eviction_manager.go). For a critical pod others have to go (`preemption`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import msgspec

from minikube_raw.api import quantity, tolerations
from minikube_raw.api.core import Pod, Taint
from minikube_raw.api.node_affinity import node_affinity
from minikube_raw.kubelet import preemption, qos
from minikube_raw.kubelet.admission import Refusal
from minikube_raw.kubelet.pods import is_critical
from minikube_raw.kubelet.preemption import Held
from minikube_raw.kubelet.topologymanager import TopologyManager

_LISTED = ("cpu", "memory", "ephemeral-storage")
_MEMORY_PRESSURE = "MemoryPressure"
_MEMORY_TAINT = Taint(key="node.kubernetes.io/memory-pressure", effect="NoSchedule")
_SHUTDOWN = Refusal("NodeShutdown", "Pod was rejected as the node is shutting down.")
_ANY_ADDRESS = ("", "0.0.0.0")
Port = tuple[str, str, int]  # protocol, host address, port


class NodeView(msgspec.Struct, frozen=True):
    """The node as its object shows it now; allocatable None: whatever comes fits (a host without a master)."""

    name: str = ""
    allocatable: Mapping[str, str] | None = None
    labels: Mapping[str, str] = {}
    taints: tuple[Taint, ...] = ()
    pressures: Collection[str] = ()
    pinning: tuple[str, ...] = ()  # who gives containers CPUs or memory for themselves: "CPU Manager", "Memory Manager"
    shutting_down: bool = False


def held(pod: Pod) -> Held:
    """What the pod takes. Raises ValueError for an amount that is none."""
    asked = (name for each in pod.spec.containers for name in each.resources.requests)
    names = dict.fromkeys((*_LISTED, *asked))
    return Held(pod, {name: _amount(pod, name) for name in names}, tuple(_ports(pod)))


class Room:
    """Who was admitted, and whether another one may be. Asked by pod workers on the event loop, so one at a time."""

    def __init__(self, node: Callable[[], NodeView] = NodeView, placement: TopologyManager | None = None) -> None:
        self._node = node
        self._placement = placement or TopologyManager(())
        self._admitted: dict[str, Held] = {}
        self._awaited: dict[str, set[str]] = {}  # pod → those that end for it
        self._freed: Callable[[], None] = lambda: None
        self._preempt: Callable[[Pod], None] = lambda pod: None

    def refusal(self, pod: Pod, *, started: bool) -> Refusal | None:
        """What speaks against the pod; None when it is admitted, which it is until released. `started`: it was before.

        A critical pod that lacks nothing but resources is admitted, and others are told to go: see `awaits`.
        """
        known = self._admitted.get(pod.metadata.uid)
        if known is not None and known.pod is pod:
            return None
        try:
            wish = held(pod)
            refused = None if known or started else self._first_refusal(wish)
        except ValueError as error:
            return Refusal("UnexpectedAdmissionError", f"Unexpected error while admitting the pod: {error}")
        if refused is None:
            if started and known is None:
                self._placement.readmit(pod)
            self._admitted[pod.metadata.uid] = wish
        return refused

    def _first_refusal(self, wish: Held) -> Refusal | None:
        node, others = self._node(), self._admitted.values()
        if not is_critical(wish.pod):
            return first_refusal(wish, node, others) or self._placement.refusal(wish.pod)
        missing = {each.name: each.missing for each in shortages(wish, node.allocatable, others)}
        without = msgspec.structs.replace(node, allocatable=None)
        refused = first_refusal(wish, without, others) or self._placement.refusal(wish.pod)
        return refused or (self._make_room(wish, missing) if missing else None)

    def _make_room(self, wish: Held, missing: Mapping[str, int]) -> Refusal | None:
        """Tell others to go; None, unless that would not be enough."""
        try:
            going = preemption.choose(wish.pod, self._admitted.values(), missing)
        except preemption.NothingToPreempt as error:
            why = f"preemption: error finding a set of pods to preempt: {error}"
            message = f"Unexpected error while attempting to recover from admission failure: {why}"
            self._placement.release(wish.pod.metadata.uid)
            return Refusal("UnexpectedAdmissionError", message)
        self._awaited[wish.pod.metadata.uid] = {each.pod.metadata.uid for each in going}
        for each in going:
            self._preempt(each.pod)
        return None

    def awaits(self, uid: str) -> bool:
        """Whether a pod was admitted whose room others are still leaving."""
        return bool(self._awaited.get(uid))

    def resize(self, pod: Pod) -> tuple[str, str, str] | None:
        """Why an admitted pod cannot have what it now asks for: reason, message, and what the Event calls it. None: it has it."""
        uid, node, wish = pod.metadata.uid, self._node(), held(pod)
        allocatable = node.allocatable
        if uid not in self._admitted:
            return None  # released meanwhile: it ends
        for policy in node.pinning if qos.qos_class(pod) is qos.QOSClass.GUARANTEED else ():
            return (
                "Infeasible",
                f"Resize is infeasible for Guaranteed Pods alongside {policy} static policy",
                "Infeasible",
            )
        if allocatable is not None:
            for name in ("memory", "cpu"):
                wanted, capacity = wish.amounts[name], _units(allocatable, name)
                if wanted > capacity:
                    text = f"Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}"
                    return "Infeasible", text, "Infeasible"
            others = [other for known, other in self._admitted.items() if known != uid]
            for short in shortages(wish, allocatable, others):
                return "Deferred", short.refusal().message, short.refusal().reason
        before, self._admitted[uid] = self._admitted[uid], wish
        if any(amount > wish.of(name) for name, amount in before.amounts.items()):
            self._freed()
        return None

    def on_release(self, look_again: Callable[[], None]) -> None:
        """Call `look_again` when room becomes free: who waits for it has to look again."""
        self._freed = look_again

    def on_preempt(self, preempt: Callable[[Pod], None]) -> None:
        """Call `preempt` for each pod that has to end for a critical one."""
        self._preempt = preempt

    def release(self, uid: str) -> None:
        """The pod has ended or its object is gone: its room is free. Twice is fine."""
        self._awaited.pop(uid, None)
        self._placement.release(uid)
        for going in self._awaited.values():
            going.discard(uid)
        if self._admitted.pop(uid, None) is not None:
            self._freed()

    def admitted(self) -> Collection[Pod]:
        """The pods that hold room."""
        return [each.pod for each in self._admitted.values()]


def first_refusal(wish: Held, node: NodeView, others: Collection[Held]) -> Refusal | None:
    """The first thing that speaks against a pod beside others. Raises ValueError for an operator that is none."""
    pod = wish.pod
    if node.shutting_down:
        return _SHUTDOWN
    if node.pressures and not _stands_pressure(pod, node.pressures):
        return Refusal("Evicted", f"The node had condition: [{' '.join(sorted(node.pressures))}]. ")
    for short in shortages(wish, node.allocatable, others):
        return short.refusal()
    if not node_affinity(pod.spec.node_selector, pod.spec.affinity).allows(node.name, node.labels):
        return _predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
    if any(_conflicts(port, taken) for port in wish.ports for other in others for taken in other.ports):
        return _predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    lasting = [taint for taint in node.taints if taint.effect == "NoExecute"]
    if not all(tolerations.tolerates(pod.spec.tolerations, taint) for taint in lasting):
        return _predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
    return None


def _predicate(name: str, why: str) -> Refusal:
    return Refusal(name, f"Predicate {name} failed: {why}")


def _stands_pressure(pod: Pod, pressures: Collection[str]) -> bool:
    """Critical pods do; under memory pressure alone also what asked for memory, or tolerates it."""
    if is_critical(pod):
        return True
    if set(pressures) != {_MEMORY_PRESSURE}:
        return False
    best_effort = qos.qos_class(pod) is qos.QOSClass.BEST_EFFORT
    return not best_effort or tolerations.tolerates(pod.spec.tolerations, _MEMORY_TAINT)


class Shortage(msgspec.Struct, frozen=True):
    """A resource of which a pod asks for more than is left."""

    name: str
    requested: int
    used: int
    capacity: int

    @property
    def missing(self) -> int:
        """What others would have to give."""
        return self.requested - (self.capacity - self.used)

    def refusal(self) -> Refusal:
        """In the kubelet's words."""
        amounts = f"requested: {self.requested}, used: {self.used}, capacity: {self.capacity}"
        return Refusal(f"OutOf{self.name}", f"Node didn't have enough resource: {self.name}, {amounts}")


def shortages(wish: Held, allocatable: Mapping[str, str] | None, others: Collection[Held]) -> Iterator[Shortage]:
    """Yield what is short; what the node does not know (an extended resource without its plugin) does not count."""
    if allocatable is None:
        return
    for name in ("pods", *wish.amounts):
        wanted = wish.of(name)
        if wanted <= 0 or (name not in allocatable and name not in (*_LISTED, "pods")):
            continue
        short = Shortage(name, wanted, sum(other.of(name) for other in others), _units(allocatable, name))
        if short.missing > 0:
            yield short


def _units(amounts: qos.Amounts, name: str) -> int:
    amount = quantity.resource(amounts, name)
    return amount.milli() if name == "cpu" else amount.value()


def _amount(pod: Pod, name: str) -> int:
    return qos.pod_request(pod, lambda amounts: _units(amounts, name))


def _ports(pod: Pod) -> Iterable[Port]:
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        for port in container.ports:
            number = port.host_port or (port.container_port if pod.spec.host_network else 0)
            if number:
                yield port.protocol or "TCP", port.host_ip, number


def _conflicts(one: Port, other: Port) -> bool:
    anywhere = one[1] in _ANY_ADDRESS or other[1] in _ANY_ADDRESS
    return (one[0], one[2]) == (other[0], other[2]) and (anywhere or one[1] == other[1])
