"""Whose memory is on which NUMA nodes, and where there is room for more: the tables of the memory manager's static policy.

Pure. Arithmetic and words are the kubelet's (pkg/kubelet/cm/memorymanager/policy_static.go): nodes that hold one container's
memory together are a group, which no other set of nodes may overlap. Only who has what is kept; all else follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from minikube_raw.api import quantity
from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet.numa import Nodes, NUMANode, narrowness
from minikube_raw.kubelet.pods import is_sidecar
from minikube_raw.kubelet.qos import Amounts, QOSClass, pod_amount, qos_class, requests_of
from minikube_raw.kubelet.topologyhints import Hint, sets_of

MEMORY = "memory"
Sizes = Mapping[str, int]  # bytes by resource: memory, hugepages-2Mi, …


class Block(msgspec.Struct, frozen=True, rename={"nodes": "numaAffinity"}):
    """Memory of one type that a container has on a node, or a group of them."""

    nodes: tuple[int, ...]
    type: str
    size: int


class Table(msgspec.Struct, rename={"system_reserved": "systemReserved"}):
    """The memory of one type on one node, in bytes."""

    total: int
    system_reserved: int
    allocatable: int
    reserved: int
    free: int


class NodeState(msgspec.Struct, rename={"assignments": "numberOfAssignments", "memory": "memoryMap", "group": "nodes"}):
    """What is left of a node, how many blocks lie on it, and with which nodes it is in a group."""

    assignments: int
    memory: dict[str, Table]
    group: tuple[int, ...]


Machine = dict[int, NodeState]
Entries = dict[str, dict[str, tuple[Block, ...]]]  # blocks by pod uid and container


class CannotAllocate(ValueError):
    """There is no place for a container's memory."""


def empty(machine: Sequence[NUMANode], reserved: Mapping[int, Sizes]) -> Machine:
    """A machine on which nobody has memory. What is reserved is nobody's; plain memory is what huge pages leave."""
    found: Machine = {}
    for node in machine:
        kept, tables = reserved.get(node.number, {}), {}
        huge = sum(size for name, size in node.memory.items() if name != MEMORY)
        for name, total in node.memory.items():
            allocatable = total - kept.get(name, 0) - (huge if name == MEMORY else 0)
            tables[name] = Table(total, kept.get(name, 0), allocatable, 0, allocatable)
        found[node.number] = NodeState(0, tables, (node.number,))
    return found


def occupied(bare: Machine, entries: Entries) -> Machine:
    """A machine with the memory that containers have. Raises ValueError where an entry names what it has not."""
    machine = msgspec.convert(msgspec.to_builtins(bare), Machine)
    for containers in entries.values():
        for blocks in containers.values():
            for block in blocks:
                _put(machine, block)
    return machine


def _put(machine: Machine, block: Block) -> None:
    """Fill the block's nodes, the lowest first."""
    left = block.size
    for number in block.nodes:
        if number not in machine or block.type not in machine[number].memory:
            raise ValueError(f"NUMA node {number} with {block.type} does not exist")
        node = machine[number]
        node.assignments += 1
        node.group = block.nodes
        table = node.memory[block.type]
        taken = min(left, max(table.free, 0))
        table.reserved += taken
        table.free -= taken
        left -= taken


def requested(pod: Pod, container: Container | None = None) -> Sizes:
    """The memory of its own that a container asks for, or a pod for all of them; none: it is not Guaranteed, or shares a pod's."""
    if qos_class(pod) is not QOSClass.GUARANTEED or pod.spec.resources is not None:
        return {}
    every = (container,) if container is not None else (*pod.spec.init_containers, *pod.spec.containers)
    names = dict.fromkeys(name for each in every for name in requests_of(each) if _is_memory(name))
    return {name: _amount(pod, container, name) for name in names}


def _amount(pod: Pod, container: Container | None, name: str) -> int:
    def size(amounts: Amounts) -> int:
        return quantity.resource(amounts, name).value()

    return pod_amount(pod, size, limits=False) if container is None else size(requests_of(container))


def _is_memory(name: str) -> bool:
    return name == MEMORY or name.startswith("hugepages-")


def hints(bare: Machine, entries: Entries, pod: Pod, wanted: Sizes) -> dict[str, list[Hint]]:
    """Where the memory could be, for each resource alike; preferred are the fewest nodes that could ever hold it."""
    machine, possible, fewest = occupied(bare, entries), list[Nodes](), len(bare)
    for nodes in sets_of(machine):
        tables = {name: [machine[number].memory.get(name) for number in nodes] for name in wanted}
        if any(sum(each.allocatable for each in tables[name] if each) < size for name, size in wanted.items()):
            continue
        fewest = min(fewest, len(nodes))
        free = {name: sum(each.free for each in found if each) for name, found in tables.items()}
        reusable = {name: _reusable(entries, pod, nodes, name) for name in wanted}
        if not _breaks_group(machine, nodes) and all(free[n] + reusable[n] >= size for n, size in wanted.items()):
            possible.append(nodes)
    return {name: [Hint(nodes, len(nodes) == fewest) for nodes in possible] for name in wanted}


def known(blocks: Iterable[Block], wanted: Sizes) -> dict[str, list[Hint]] | None:
    """The hints of memory that a container has already; None when it has not what it asks for."""
    blocks = tuple(blocks)
    if {block.type: block.size for block in blocks} != dict(wanted):
        return None
    return {block.type: [Hint(frozenset(block.nodes), True)] for block in blocks}


def allocate(bare: Machine, entries: Entries, pod: Pod, container: Container, affinity: Hint) -> Entries:
    """The entries with a container's memory in them, where the hint says or on more nodes. Raises CannotAllocate.

    What init containers that have ended by then had on the same nodes is used again.
    """
    wanted, uid = requested(pod, container), pod.metadata.uid
    if not wanted or container.name in entries.get(uid, {}):
        return entries
    machine = occupied(bare, entries)
    nodes = _place(machine, hints(bare, entries, pod, wanted).get(MEMORY, []), wanted, affinity)
    own = {**entries.get(uid, {}), container.name: tuple(Block(tuple(sorted(nodes)), *each) for each in wanted.items())}
    return {**entries, uid: _without_reused(pod, container, own)}


def _place(machine: Machine, possible: Sequence[Hint], wanted: Sizes, affinity: Hint) -> Nodes:
    nodes, preferred = affinity.nodes, affinity.preferred
    if nodes is None:
        if not possible:
            raise CannotAllocate(
                "failed to get the default NUMA affinity, no NUMA nodes with enough memory is available"
            )
        best = _best(possible)
        if preferred and not best.preferred:
            raise CannotAllocate("failed to find the default preferred hint")
        nodes, preferred = best.nodes or frozenset(), best.preferred
    if not _has_room(machine, nodes, wanted):  # merging may have left fewer nodes than it takes
        wider = [hint for hint in possible if nodes <= (hint.nodes or frozenset())]
        if not wider:
            raise CannotAllocate("failed to find NUMA nodes to extend the current topology hint")
        best = _best(wider)
        if preferred and not best.preferred:
            raise CannotAllocate("failed to find the extended preferred hint")
        nodes = best.nodes or frozenset()
    if len(nodes) > 1 and _breaks_group(machine, nodes):
        raise CannotAllocate("preferred hint violates NUMA node allocation")
    return nodes


def _best(possible: Iterable[Hint]) -> Hint:
    return min(possible, key=lambda hint: (not hint.preferred, narrowness(hint.nodes or frozenset())))


def _has_room(machine: Machine, nodes: Nodes, wanted: Sizes) -> bool:
    return all(_free(machine, nodes, name) >= size for name, size in wanted.items())


def _free(machine: Machine, nodes: Nodes, name: str) -> int:
    return sum(machine[number].memory[name].free for number in nodes if name in machine[number].memory)


def _breaks_group(machine: Machine, nodes: Nodes) -> bool:
    """Whether memory on these nodes together would cut through what others have on some of them."""
    ordered = tuple(sorted(nodes))
    if len(ordered) == 1:
        return len(machine[ordered[0]].group) > 1
    return any(machine[number].assignments and machine[number].group != ordered for number in nodes)


def _reusable(entries: Entries, pod: Pod, nodes: Nodes, name: str) -> int:
    """What the pod's init containers have on exactly these nodes: they have ended when others of the pod begin."""
    own, ordered = entries.get(pod.metadata.uid, {}), tuple(sorted(nodes))
    passing = [each.name for each in pod.spec.init_containers if not is_sidecar(each)]
    blocks = (block for each in passing for block in own.get(each, ()))
    return sum(block.size for block in blocks if block.nodes == ordered and block.type == name)


def _without_reused(pod: Pod, container: Container, own: dict[str, tuple[Block, ...]]) -> dict[str, tuple[Block, ...]]:
    """The pod's blocks once a container has used again what init containers before it had: so their sum is what is taken."""
    left = {(block.nodes, block.type): block.size for block in own[container.name]}
    for init in pod.spec.init_containers:
        if init.name == container.name:
            break
        if is_sidecar(init) or init.name not in own:
            continue
        kept = []
        for block in own[init.name]:
            used = min(block.size, left.get((block.nodes, block.type), 0))
            left[block.nodes, block.type] = left.get((block.nodes, block.type), 0) - used
            kept.append(msgspec.structs.replace(block, size=block.size - used))
        own[init.name] = tuple(kept)
    return own
