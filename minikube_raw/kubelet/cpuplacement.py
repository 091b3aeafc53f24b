"""Which of the free CPUs a container gets for itself.

The order is the kubelet's (pkg/kubelet/cm/cpumanager/cpu_assignment.go): whole sockets or NUMA nodes while one fits, whole
cores while one fits, then single CPUs, always where the least is left, so that large pieces stay whole. Options of the static
policy change it: see `Placement`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence

from minikube_raw.kubelet import cpuoptions
from minikube_raw.kubelet.cpudistribution import shares
from minikube_raw.kubelet.cputopology import CPU, CPUs, core_of, parse, show, threads

Level = Callable[[CPU], tuple[int, ...]]  # names the piece of a machine that a CPU is in


def _node(cpu: CPU) -> tuple[int, ...]:
    return (cpu.node,)


def _socket(cpu: CPU) -> tuple[int, ...]:
    return (cpu.socket,)


def _cache(cpu: CPU) -> tuple[int, ...]:
    return (cpu.socket, cpu.cache)


class Placement:
    """Gives away the CPUs of one machine.

    By the options: as many of each NUMA node where one is not enough (distribute-cpus-across-numa), of as few last-level caches
    as can be (prefer-align-cpus-by-uncorecache), of as many cores as can be (distribute-cpus-across-cores).
    """

    def __init__(self, topology: Sequence[CPU], options: Collection[str] = ()) -> None:
        self._topology, self._options = topology, options
        nodes, sockets = len({cpu.node for cpu in topology}), len({cpu.socket for cpu in topology})
        self._outer: tuple[Level, Level] = (_node, _socket) if sockets >= nodes else (_socket, _node)
        self._group = threads(topology) if cpuoptions.WHOLE_CORES in options else 1

    def take(self, free: CPUs, count: int, preferred: CPUs = frozenset()) -> CPUs:
        """`count` of the free CPUs, those of `preferred` if they will do. Raises ValueError when there are too few."""
        if count > len(free):
            raise ValueError(f"not enough cpus available to satisfy request: requested={count}, available={len(free)}")
        if len(preferred) == count and preferred <= free:
            return preferred
        if cpuoptions.ACROSS_NODES in self._options and count and count % self._group == 0:
            return self._distributed(free, count)
        return self._packed(free, count)

    def take_near(self, free: CPUs, count: int, nodes: frozenset[int] | None) -> CPUs:
        """As `take`, those of some NUMA nodes before all others. Raises ValueError when there are too few."""
        near = {cpu.number for cpu in self._topology if nodes is None or cpu.node in nodes}
        return self.take_first(frozenset(near), free, count)

    def take_first(self, first: CPUs, free: CPUs, count: int) -> CPUs:
        """As `take`, those of `first` before all others. Raises ValueError when there are too few."""
        if count > len(free):
            return self.take(free, count)
        chosen = self.take(free & first, min(count, len(free & first)))
        return chosen | self.take(free - chosen, count - len(chosen))

    def _distributed(self, free: CPUs, count: int) -> CPUs:
        path = (_node,) if self._outer[0] is _node else self._outer
        by_node = {group[0].node: _numbers(group) for group in self._ordered(path, free)}
        available = {node: len(cpus) for node, cpus in by_node.items()}
        steps = shares(available, count, self._group)
        if steps is None:
            return self._packed(free, count)
        chosen = frozenset[int]()
        for step in steps:
            chosen |= self._packed(by_node[step.node] - chosen, step.amount)
        return chosen

    def _packed(self, free: CPUs, count: int) -> CPUs:
        chosen = frozenset[int]()
        for path in (self._outer[:1], self._outer):
            chosen |= self._whole(path, free - chosen, count - len(chosen))
        if cpuoptions.BY_CACHE in self._options:
            chosen |= self._by_cache(free - chosen, count - len(chosen))
        if cpuoptions.ACROSS_CORES not in self._options:
            chosen |= self._by_cores(free - chosen, count - len(chosen))
        return chosen | self._singles(free - chosen, count - len(chosen))

    def _whole(self, path: Sequence[Level], free: CPUs, count: int) -> CPUs:
        """As many whole pieces as are not more than `count`."""
        level, chosen = path[-1], frozenset[int]()
        sizes = _counts(level, self._topology)
        for group in self._ordered(path, free):
            if len(group) == sizes[level(group[0])] and len(chosen) + len(group) <= count:
                chosen |= _numbers(group)
        return chosen

    def _by_cache(self, free: CPUs, count: int) -> CPUs:
        """Whole caches, and the rest of the fullest one that still has so many; nothing where none has."""
        path = (*self._outer, _cache) if self._outer[1] is _node else (_node, _cache)
        chosen = self._whole(path, free, count)
        rest = count - len(chosen)
        for group in self._ordered(path, free):
            left = _numbers(group) - chosen
            if len(left) >= rest:
                part = self._by_cores(left, rest)
                return chosen | part | self._singles(left - part, rest - len(part))
        return chosen

    def _by_cores(self, free: CPUs, count: int) -> CPUs:
        return self._whole((*self._outer, core_of), free, count)

    def _singles(self, free: CPUs, count: int) -> CPUs:
        path: tuple[Level, ...] = (*self._outer, core_of)
        if cpuoptions.ACROSS_CORES in self._options:  # by number: Linux counts the second threads of all cores last
            path = (_socket,) if self._outer[0] is _socket else self._outer
        ordered = [cpu.number for group in self._ordered(path, free) for cpu in group]
        return frozenset(ordered[:count])

    def _ordered(self, path: Sequence[Level], free: CPUs) -> list[list[CPU]]:
        """The free CPUs by the pieces at the end of `path`; first those in the larger pieces with the least left."""
        cpus = sorted((cpu for cpu in self._topology if cpu.number in free), key=lambda cpu: cpu.number)
        counted = [(level, _counts(level, cpus)) for level in path]
        groups: dict[tuple[object, ...], list[CPU]] = {}
        for cpu in cpus:
            groups.setdefault(tuple((left[level(cpu)], level(cpu)) for level, left in counted), []).append(cpu)
        return [group for _, group in sorted(groups.items())]


def _counts(level: Level, cpus: Iterable[CPU]) -> dict[tuple[int, ...], int]:
    found: dict[tuple[int, ...], int] = {}
    for cpu in cpus:
        found[level(cpu)] = found.get(level(cpu), 0) + 1
    return found


def _numbers(cpus: Iterable[CPU]) -> CPUs:
    return frozenset(cpu.number for cpu in cpus)


def reserved_cpus(named: str, reserved: int, topology: Sequence[CPU], options: Collection[str] = ()) -> CPUs:
    """The CPUs that nobody gets alone: those `named`, else as many of the first as thousandths of CPUs are reserved.

    Raises ValueError: the static policy must leave something for the node itself.
    """
    known = frozenset(cpu.number for cpu in topology)
    found = parse(named)
    if not named and 0 < reserved <= len(known) * 1000:
        found = Placement(topology, options).take(known, math.ceil(reserved / 1000))
    if not found:
        raise ValueError("the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero")
    if not found <= known:
        raise ValueError(f"reserved CPUs {show(found - known)} are not among {show(known)}")
    return found
