"""When a node is short of something: eviction signals against thresholds, with grace, minimum reclaim and lasting conditions.

Pure but for what it remembers from one look to the next. Rules are the kubelet's (pkg/kubelet/eviction/helpers.go): a hard
threshold acts at once, a soft one after its grace period; once met, a threshold stays met until its minimum reclaim is
reached; a condition outlasts its cause by the transition period, so that it does not flap.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from minikube_raw.kubelet import reserved
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.reserved import Threshold

ALLOCATABLE = "allocatableMemory.available"  # what the cgroup of all pods has left, beside what the node has
# signal → resource that is reclaimed, condition of the node. In the order in which they are acted on: memory kills fastest.
_MEANING = {
    "memory.available": ("memory", "MemoryPressure"),
    ALLOCATABLE: ("memory", "MemoryPressure"),
    "pid.available": ("pids", "PIDPressure"),
    "nodefs.available": ("ephemeral-storage", "DiskPressure"),
    "nodefs.inodesFree": ("inodes", "DiskPressure"),
    "imagefs.available": ("ephemeral-storage", "DiskPressure"),
    "imagefs.inodesFree": ("inodes", "DiskPressure"),
}


class Observation(msgspec.Struct, frozen=True):
    """What a signal says: how much there is, and how much of it is left."""

    available: int
    capacity: int


class Met(msgspec.Struct, frozen=True):
    """A threshold that was reached."""

    signal: str
    quantity: int
    available: int
    hard: bool
    text: str = ""  # the quantity as it was given, nothing for a share

    @property
    def resource(self) -> str:
        """What evicting a pod should give back."""
        return _MEANING[self.signal][0]

    @property
    def is_disk(self) -> bool:
        """Whether deleting files helps."""
        return _MEANING[self.signal][1] == "DiskPressure"


class Judgement(msgspec.Struct, frozen=True):
    """The node's conditions, and the thresholds to act on now, the most urgent first."""

    conditions: frozenset[str] = frozenset()
    acting: tuple[Met, ...] = ()


class Thresholds:
    """The thresholds of one node and since when each is met."""

    def __init__(self, options: KubeletOptions) -> None:
        hard = {name: reserved.threshold(text) for name, text in options.eviction_hard.items()}
        if "memory.available" in hard:
            hard[ALLOCATABLE] = hard["memory.available"]
        soft = {name: reserved.threshold(text) for name, text in options.eviction_soft.items()}
        self._thresholds: list[tuple[str, Threshold, bool]] = [
            (name, each, is_hard) for is_hard, of in ((True, hard), (False, soft)) for name, each in of.items()
        ]
        self._thresholds.sort(key=lambda entry: list(_MEANING).index(entry[0]))
        self._grace = {name: reserved.duration(text) for name, text in options.eviction_soft_grace_period.items()}
        self._reclaim = {name: reserved.threshold(text) for name, text in options.eviction_minimum_reclaim.items()}
        self._transition = options.eviction_pressure_transition_period
        self._since: dict[tuple[str, bool], float] = {}
        self._last: dict[str, float] = {}  # condition → when a threshold of it was met last

    def judge(self, observed: Mapping[str, Observation], now: float) -> Judgement:
        """Compare one look with the thresholds."""
        met = [found for entry in self._thresholds if (found := self._met(*entry, observed)) is not None]
        self._since = {(each.signal, each.hard): self._since.get((each.signal, each.hard), now) for each in met}
        for each in met:
            self._last[_MEANING[each.signal][1]] = now
        lasting = {kind for kind, at in self._last.items() if now - at < self._transition or at == now}
        acting = [
            each
            for each in met
            if each.hard or now - self._since[each.signal, False] >= self._grace.get(each.signal, 0.0)
        ]
        return Judgement(frozenset(lasting), tuple(acting))

    def still_short(self, observed: Mapping[str, Observation]) -> bool:
        """Whether any threshold is met, each with its minimum reclaim, whatever the graces say."""
        wanted = ((name, threshold, observed.get(name)) for name, threshold, _ in self._thresholds)
        return any(found is not None and self._is_below(found, name, each) for name, each, found in wanted)

    def _is_below(self, found: Observation, signal: str, threshold: Threshold) -> bool:
        return found.capacity > 0 and found.available < threshold.of(found.capacity) + self._least(signal, found)

    def _least(self, signal: str, found: Observation) -> int:
        """What must be reclaimed beyond the threshold."""
        return self._reclaim[signal].of(found.capacity) if signal in self._reclaim else 0

    def _met(self, signal: str, threshold: Threshold, hard: bool, observed: Mapping[str, Observation]) -> Met | None:
        found = observed.get(signal)
        if found is None or not found.capacity:  # a file system that has no count of inodes
            return None
        quantity = threshold.of(found.capacity)
        wanted = quantity
        if (signal, hard) in self._since:
            wanted += self._least(signal, found)
        return Met(signal, quantity, found.available, hard, threshold.text) if found.available < wanted else None
