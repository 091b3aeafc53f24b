"""How many CPUs each NUMA node gives where a container needs more than one (distribute-cpus-across-numa, KEP-2902).

Pure arithmetic: of the smallest sets of nodes that can give evenly, the one after which all nodes have most nearly as many
left (takeByTopologyNUMADistributed of pkg/kubelet/cm/cpumanager/cpu_assignment.go).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """So many CPUs of a node, to be taken at a time."""

    node: int
    amount: int


class _Shares(NamedTuple):
    imbalance: int  # the sum stays the same, so the least sum of squares is the least standard deviation
    steps: list[Step]


def shares(free: Mapping[int, int], count: int, group: int) -> list[Step] | None:
    """What each node gives; None where no nodes can give evenly. Ties are won by nodes that come first.

    `free`: CPUs by node; they come in groups of `group`, the threads of a core.
    """
    for size in range(1, min(count // group, len(free)) + 1):
        possible = [each for nodes in itertools.combinations(free, size) for each in _of(free, nodes, count, group)]
        if possible:
            return min(possible, key=lambda each: each.imbalance).steps
    return None


def _of(free: Mapping[int, int], nodes: Sequence[int], count: int, group: int) -> Iterator[_Shares]:
    """What these nodes could give: as many each, and what remains by as many of them as can."""
    even = count // len(nodes) // group * group
    if any(free[node] < even for node in nodes):
        return
    left = {node: has - even if node in nodes else has for node, has in free.items()}
    steps = [Step(node, even) for node in nodes if even]
    for some in _subsets([node for node in nodes if left[node] >= group], rest := count - even * len(nodes)):
        after, more = dict(left), list[Step]()
        if sum(left[node] // group for node in some) * group < rest:
            continue
        for node in itertools.cycle(some):
            if len(more) * group == rest:
                break
            if after[node] >= group:
                after[node] -= group
                more.append(Step(node, group))
        yield _Shares(sum(has**2 for has in after.values()), steps + more)


def _subsets(nodes: Sequence[int], rest: int) -> Iterable[Sequence[int]]:
    """Which nodes may give what remains, the most first; where nothing does, all do as well as any."""
    if not rest:
        return [nodes]
    return itertools.chain.from_iterable(itertools.combinations(nodes, size) for size in range(len(nodes), 0, -1))
