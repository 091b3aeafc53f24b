"""What node, pods and containers use: read from their cgroups when somebody asks, never on a timer, so that idle costs nothing.

A rate needs two readings: the one before this, if it is old enough, else the average since the container began; what has just
begun has none, since a quota of 10 ms in every 100 ms looks like a sixth of a core after 60 ms. Blocking; the callers run it in a
thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec
import psutil

from minikube_raw.api.core import Pod
from minikube_raw.kubelet.nodecgroup import PODS
from minikube_raw.kubelet.thresholds import ALLOCATABLE, Observation
from minikube_raw.linux.cgroups import Pressure, Stats, manager
from minikube_raw.runtime import cri

LEAST_WINDOW = 2.0  # seconds between the two readings of a rate
PRESSURES = ("cpu", "memory", "io")
Pressures = dict[str, dict[str, Pressure]]


class Reading(msgspec.Struct, frozen=True):
    """One cgroup at one moment: `at` and `since` (its start) in seconds since the epoch, `cores` its CPU use as a rate (None: too
    young for one)."""

    at: float
    since: float
    stats: Stats
    cores: float | None
    window: float  # seconds that `cores` is the average of
    pressures: Pressures = {}


class ContainerUse(msgspec.Struct, frozen=True):
    """A running container."""

    status: cri.ContainerStatus
    reading: Reading


class PodUse(msgspec.Struct, frozen=True):
    """A pod with its running containers; `process` is one of its processes (0: none), whose network is the pod's."""

    pod: Pod
    cgroup: str
    reading: Reading
    containers: tuple[ContainerUse, ...]

    @property
    def process(self) -> int:
        """A process in the pod's network namespace."""
        return next((each.status.pid for each in self.containers if each.status.pid), 0)


class NodeUse(msgspec.Struct, frozen=True):
    """The node, all its pods' cgroup, and each pod."""

    node: Reading
    all_pods: Reading
    pods: tuple[PodUse, ...]
    available: int  # bytes of memory


class Subject(msgspec.Struct, frozen=True):
    """A pod to be measured: its cgroup below the node's, and its running containers."""

    pod: Pod
    cgroup: str
    since: float
    running: tuple[cri.ContainerStatus, ...]


class UsageReader:
    """Readings below one node's cgroup; remembers two of each, for rates."""

    def __init__(self, cgroup_root: str, now: Callable[[], float] = time.time) -> None:
        self._root = cgroup_root
        self._now = now
        self._began = psutil.boot_time() if not cgroup_root else now()
        self._past: dict[str, list[tuple[float, int]]] = {}  # cgroup → (when, ns of CPU), the older one first
        self._lock = threading.Lock()

    def read(self, subjects: Iterable[Subject], *, pressures: bool = True) -> NodeUse:
        """Read everything. A pod whose cgroup has just gone is left out."""
        with self._lock:
            pods = []
            for subject in subjects:
                with suppress(FileNotFoundError):
                    pods.append(self._pod(subject, pressures))
            node = self._node(pressures)
            everything = self._cgroup(f"{self._root}/{PODS}", self._began, pressures)
            self._forget({PODS, "", *(each.cgroup for each in pods)})
        return NodeUse(node, everything, tuple(pods), memory_available(node.stats))

    def memory(self) -> dict[str, Observation]:
        """What is left of the node's memory, and of what all its pods together may use."""
        node = manager(self._root).stats() if self._root else host_stats()
        capacity = node.memory_limit or psutil.virtual_memory().total
        found = {"memory.available": Observation(memory_available(node), capacity)}
        pods = manager(f"{self._root}/{PODS}").stats()
        if pods.memory_limit is not None:
            left = max(pods.memory_limit - (pods.memory_working_set or 0), 0)
            found[ALLOCATABLE] = Observation(left, pods.memory_limit)
        return found

    def _pod(self, subject: Subject, pressures: bool) -> PodUse:
        path = f"{self._root}/{subject.cgroup}"
        containers = []
        for status in subject.running:
            with suppress(FileNotFoundError):
                reading = self._cgroup(f"{path}/{status.id}", status.started_at / 1e9, pressures)
                containers.append(ContainerUse(status, reading))
        return PodUse(subject.pod, subject.cgroup, self._cgroup(path, subject.since, pressures), tuple(containers))

    def _node(self, pressures: bool) -> Reading:
        if self._root:
            return self._cgroup(self._root, self._began, pressures)
        return self._reading("", self._began, host_stats(), {})

    def _cgroup(self, path: str, since: float, pressures: bool) -> Reading:
        group = manager(path)
        if not os.path.isdir(group.directories[0]):
            raise FileNotFoundError(path)
        found = {name: group.pressure(name) for name in PRESSURES} if pressures else {}
        return self._reading(path, since, group.stats(), found)

    def _reading(self, key: str, since: float, stats: Stats, pressures: Pressures) -> Reading:
        now, used = self._now(), stats.cpu_usage_ns or 0
        past = self._past.setdefault(key, [(since, 0)])
        if len(past) == 2 and now - past[1][0] >= LEAST_WINDOW:
            del past[0]
        before, used_before = past[0]
        window = now - before
        if len(past) < 2 and window >= LEAST_WINDOW:
            past.append((now, used))
        cores = max(used - used_before, 0) / 1e9 / window if window >= LEAST_WINDOW else None
        return Reading(now, since, stats, cores, window, pressures)

    def _forget(self, pods: set[str]) -> None:
        """Drop the past of pods that are gone."""
        kept = {f"{self._root}/{pod}" if pod else self._root for pod in pods}
        for key in list(self._past):
            if key not in kept and key.rpartition("/")[0] not in kept:
                del self._past[key]


def memory_available(node: Stats) -> int:
    """Bytes that can still be had: of the node's limit, or of the host where it has none."""
    host = psutil.virtual_memory().available
    if node.memory_limit is None:
        return int(host)
    return min(max(node.memory_limit - (node.memory_working_set or 0), 0), host)


def host_stats() -> Stats:
    """The whole machine, for a node that has no cgroup of its own around it."""
    stats, memory, times = Stats(), psutil.virtual_memory(), psutil.cpu_times()
    stats.cpu_usage_ns = int((sum(times[:3]) + sum(times[5:8])) * 1e9)  # all but idle and iowait
    stats.memory_limit = memory.total
    stats.memory_usage, stats.memory_working_set = memory.total - memory.free, memory.total - memory.available
    stats.pids = len(os.listdir("/proc"))
    return stats
