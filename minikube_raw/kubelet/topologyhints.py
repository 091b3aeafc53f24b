"""On which NUMA nodes a container, or a pod, is to be: the hints of those who give resources away, merged into one.

Pure. Rules are the kubelet's (pkg/kubelet/cm/topologymanager/policy.go): each combination of one hint per resource is the nodes
that all of it share, preferred if all of it is and names the same nodes; among those the policy's order decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from minikube_raw.kubelet.numa import Nodes, NUMANode, narrowness

NONE, BEST_EFFORT, RESTRICTED, SINGLE = "none", "best-effort", "restricted", "single-numa-node"
POLICIES = (NONE, BEST_EFFORT, RESTRICTED, SINGLE)


class Hint(msgspec.Struct, frozen=True):
    """Nodes that would do, None for any; preferred: no fewer could."""

    nodes: Nodes | None
    preferred: bool


ANY = Hint(None, True)


class Misplaced(Exception):
    """A pod cannot have its resources for a reason that has a name of its own."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


Hints = Mapping[str, Sequence[Hint]]  # by resource; a resource with none cannot be had anywhere


def sets_of(nodes: Iterable[int]) -> Iterable[Nodes]:
    """Every set of nodes but the empty one, the smallest first."""
    ordered = sorted(nodes)
    for size in range(1, len(ordered) + 1):
        yield from map(frozenset, itertools.combinations(ordered, size))


def merge(policy: str, given: Iterable[Hints], machine: Sequence[NUMANode], *, closest: bool = False) -> Hint:
    """The best hint that respects everybody's; `given` by provider. `closest`: of as many nodes the nearest to each other."""
    hints = [_or_unmet(each) for hints in given for each in hints.values()]
    if policy == SINGLE:
        hints = [[hint for hint in each if hint.preferred and len(hint.nodes or {0}) == 1] for each in hints]
    everywhere = frozenset(node.number for node in machine)
    order = _Order(hints, machine, closest=closest and policy != SINGLE)
    best: Hint | None = None
    for combination in itertools.product(*hints):
        merged = _merged(combination, everywhere)
        if merged.nodes and (best is None or order.is_better(merged, best)):
            best = merged
    if best is None:
        best = Hint(everywhere, False)
    return Hint(None, best.preferred) if policy == SINGLE and best.nodes == everywhere else best


def admits(policy: str, hint: Hint) -> bool:
    """Whether a pod may run where the hint says."""
    return hint.preferred or policy not in (RESTRICTED, SINGLE)


def _or_unmet(hints: Sequence[Hint]) -> Sequence[Hint]:
    return hints or [Hint(None, False)]


def _merged(combination: Sequence[Hint], everywhere: Nodes) -> Hint:
    named = [hint.nodes for hint in combination if hint.nodes is not None]
    preferred = all(hint.preferred for hint in combination) and len(set(named)) <= 1
    return Hint(everywhere.intersection(*named), preferred)


class _Order:
    """Which of two merged hints is better."""

    def __init__(self, hints: Sequence[Sequence[Hint]], machine: Sequence[NUMANode], *, closest: bool) -> None:
        # Of what is not preferred, best is what comes nearest to the nodes that the most demanding resource needs.
        fewest = [min((len(hint.nodes) for hint in each if hint.nodes), default=0) for each in hints]
        self._enough = max(fewest, default=0)
        self._distances = {node.number: node.distances for node in machine} if closest else {}

    def is_better(self, one: Hint, other: Hint) -> bool:
        assert one.nodes is not None and other.nodes is not None
        if one.preferred != other.preferred:
            return one.preferred
        if not one.preferred:
            lacks, lacked = self._distance_to_enough(one.nodes), self._distance_to_enough(other.nodes)
            if lacks != lacked:
                return lacks < lacked
        return self._fit(one.nodes) < self._fit(other.nodes)

    def _distance_to_enough(self, nodes: Nodes) -> tuple[bool, int]:
        """Too few are better than too many; of too many, `_fit` finds the fewest."""
        return (True, 0) if len(nodes) > self._enough else (False, self._enough - len(nodes))

    def _fit(self, nodes: Nodes) -> tuple[float, ...]:
        size, bits = narrowness(nodes)
        return (size, self._mean_distance(nodes), bits) if self._distances else (size, bits)

    def _mean_distance(self, nodes: Nodes) -> float:
        pairs = list(itertools.product(sorted(nodes), repeat=2))
        return sum(self._distances[one][other] for one, other in pairs) / len(pairs)
