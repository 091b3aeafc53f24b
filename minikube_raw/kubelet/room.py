"""Whether a pod that was bound to this node fits on it: resources, ports, labels and taints, and the node's pressures.

The scheduler has asked the same before, but not for pods with a nodeName of their own, and not of this moment's node. A pod
that was admitted once (also by a kubelet before this one) stays so. Words are the kubelet's (pkg/kubelet/lifecycle/predicate.go,
pkg/kubelet/eviction/eviction_manager.go).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from minikube_raw.api import quantity, tolerations
from minikube_raw.api.core import Pod, Taint
from minikube_raw.api.node_affinity import node_affinity
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.admission import Refusal

_LISTED = ("cpu", "memory", "ephemeral-storage")
_MEMORY_PRESSURE = "MemoryPressure"
_MEMORY_TAINT = Taint(key="node.kubernetes.io/memory-pressure", effect="NoSchedule")
_CRITICAL = 2_000_000_000  # system-cluster-critical
_ANY_ADDRESS = ("", "0.0.0.0")
Port = tuple[str, str, int]  # protocol, host address, port


class NodeView(msgspec.Struct, frozen=True):
    """The node as its object shows it now; allocatable None: whatever comes fits (a host without a master)."""

    name: str = ""
    allocatable: Mapping[str, str] | None = None
    labels: Mapping[str, str] = {}
    taints: tuple[Taint, ...] = ()
    pressures: Collection[str] = ()


class Held(msgspec.Struct, frozen=True):
    """The room of a pod, computed once: amounts by resource (thousandths of CPUs, else whole units), ports of the node."""

    pod: Pod
    amounts: Mapping[str, int]
    ports: tuple[Port, ...]


def held(pod: Pod) -> Held:
    """What the pod takes. Raises ValueError for an amount that is none."""
    asked = (name for each in pod.spec.containers for name in each.resources.requests)
    names = dict.fromkeys((*_LISTED, *asked))
    return Held(pod, {name: _amount(pod, name) for name in names}, tuple(_ports(pod)))


class Room:
    """Who was admitted, and whether another one may be. Asked by pod workers on the event loop, so one at a time."""

    def __init__(self, node: Callable[[], NodeView] = NodeView) -> None:
        self._node = node
        self._admitted: dict[str, Held] = {}
        self._freed: Callable[[], None] = lambda: None

    def refusal(self, pod: Pod, *, started: bool) -> Refusal | None:
        """What speaks against the pod; None when it is admitted, which it is until released. `started`: it was before."""
        known = self._admitted.get(pod.metadata.uid)
        if known is not None and known.pod is pod:
            return None
        try:
            wish = held(pod)
            refused = None if known or started else first_refusal(wish, self._node(), self._admitted.values())
        except ValueError as error:
            return Refusal("UnexpectedAdmissionError", f"Unexpected error while admitting the pod: {error}")
        if refused is None:
            self._admitted[pod.metadata.uid] = wish
        return refused

    def resize(self, pod: Pod) -> tuple[str, str, str] | None:
        """Why an admitted pod cannot have what it now asks for: reason, message, and what the Event calls it. None: it has it."""
        uid, allocatable, wish = pod.metadata.uid, self._node().allocatable, held(pod)
        if uid not in self._admitted:
            return None  # released meanwhile: it ends
        if allocatable is not None:
            for name in ("memory", "cpu"):
                wanted, capacity = wish.amounts[name], _units(allocatable, name)
                if wanted > capacity:
                    text = f"Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}"
                    return "Infeasible", text, "Infeasible"
            others = [other for known, other in self._admitted.items() if known != uid]
            short = _shortage(wish, allocatable, others)
            if short is not None:
                return "Deferred", short.message, short.reason
        self._admitted[uid] = wish
        return None

    def on_release(self, look_again: Callable[[], None]) -> None:
        """Call `look_again` when room becomes free: who waits for it has to look again."""
        self._freed = look_again

    def release(self, uid: str) -> None:
        """The pod has ended or its object is gone: its room is free. Twice is fine."""
        if self._admitted.pop(uid, None) is not None:
            self._freed()

    def admitted(self) -> Collection[Pod]:
        """The pods that hold room."""
        return [each.pod for each in self._admitted.values()]


def first_refusal(wish: Held, node: NodeView, others: Collection[Held]) -> Refusal | None:
    """The first thing that speaks against a pod beside others. Raises ValueError for an operator that is none."""
    pod = wish.pod
    if node.pressures and not _stands_pressure(pod, node.pressures):
        return Refusal("Evicted", f"The node had condition: [{' '.join(sorted(node.pressures))}]. ")
    if node.allocatable is not None and (short := _shortage(wish, node.allocatable, others)) is not None:
        return short
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
    if pod.spec.priority >= _CRITICAL:
        return True
    if set(pressures) != {_MEMORY_PRESSURE}:
        return False
    best_effort = qos.qos_class(pod) is qos.QOSClass.BEST_EFFORT
    return not best_effort or tolerations.tolerates(pod.spec.tolerations, _MEMORY_TAINT)


def _shortage(wish: Held, allocatable: Mapping[str, str], others: Collection[Held]) -> Refusal | None:
    """What is short; what the node does not know (an extended resource without its plugin) does not count."""
    most = int(allocatable.get("pods", "0"))
    if len(others) + 1 > most:
        return _out_of("pods", 1, len(others), most)
    for name, wanted in wish.amounts.items():
        if wanted <= 0 or (name not in allocatable and name not in _LISTED):
            continue
        used, capacity = sum(other.amounts.get(name, 0) for other in others), _units(allocatable, name)
        if wanted > capacity - used:
            return _out_of(name, wanted, used, capacity)
    return None


def _out_of(name: str, wanted: int, used: int, capacity: int) -> Refusal:
    message = f"Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
    return Refusal(f"OutOf{name}", message)


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
