"""How often probes were run and what they said, for /metrics/probes. Names are the kubelet's (pkg/kubelet/prober/prober_manager.go)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from minikube_raw.api.core import Pod
from minikube_raw.kubelet.probes import Kind, Result

# Upper bounds in seconds: those that Prometheus' clients have when they are told of no others.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Probed(NamedTuple):
    """One probe of a container; its labels."""

    namespace: str
    pod: str
    pod_uid: str
    container: str
    probe_type: str  # "Liveness"


class Count:
    """What one probe said so far, with the seconds that each success took: how many within each bound of BUCKETS, and their sum."""

    def __init__(self) -> None:
        self.successful = self.failed = 0
        self.seconds = 0.0
        self.within = [0] * len(BUCKETS)

    def add(self, seconds: float, *, succeeded: bool) -> None:
        """One more run; only a success is measured, as by the kubelet."""
        if not succeeded:
            self.failed += 1
            return
        self.successful += 1
        self.seconds += seconds
        for place, bound in enumerate(BUCKETS):
            self.within[place] += seconds <= bound


class ProbeCounts:
    """Those of one node's pods, until each pod ends."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Probed, Count]] = {}  # by pod uid

    def add(self, pod: Pod, container: str, kind: Kind, result: Result, seconds: float) -> None:
        """Note a run that said something of the container."""
        meta = pod.metadata
        probed = Probed(meta.namespace, meta.name, meta.uid, container, kind.value.capitalize())
        count = self._counts.setdefault(meta.uid, {}).setdefault(probed, Count())
        count.add(seconds, succeeded=result.succeeded)

    def forget(self, uid: str) -> None:
        """The pod is probed no more; one that never was is fine."""
        self._counts.pop(uid, None)

    def __iter__(self) -> Iterator[tuple[Probed, Count]]:
        """Every probe with what it said."""
        for of_pod in self._counts.values():
            yield from of_pod.items()
