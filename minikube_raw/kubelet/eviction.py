"""The node protects itself: short of memory, disk, inodes or pids, it ends pods, one at a time, until it has enough again.

Short of disk it first deletes what nobody misses: containers of pods that have ended, images that no container holds.

Every ten seconds it looks at a few figures, and at once when the kernel says that tasks stall for want of memory (PSI).
`thresholds` judge, `ranking` chooses, `localstorage` finds pods beyond their own limits; the pod's worker ends it. Which pods
use how much is read only when one has to go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import Clock
from minikube_raw.kubelet import localstorage, ranking
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.pods import is_critical
from minikube_raw.kubelet.ranking import Candidate
from minikube_raw.kubelet.summary import PodDisk
from minikube_raw.kubelet.thresholds import Judgement, Met, Observation, Thresholds
from minikube_raw.kubelet.usage import NodeUse, PodUse
from minikube_raw.linux import pressure
from minikube_raw.linux.disk_usage import FileSystem, Use

log = logging.getLogger(__name__)
PERIOD = 10.0
# How long one evicted pod is waited for before the next is chosen (podCleanupTimeout).
CLEANUP_SECONDS = 30.0


class Figures(Protocol):
    """What eviction reads of a node: see stats.StatsProvider."""

    async def memory(self) -> Mapping[str, Observation]:
        """Memory signals."""
        ...

    async def usage(self, *, pressures: bool = True) -> NodeUse:
        """CPU, memory and processes of each pod."""
        ...

    async def disks(self, wanted: Callable[[Pod], bool] = ..., max_age: float = 0.0) -> Mapping[str, PodDisk]:
        """What pods hold on disk."""
        ...

    def file_systems(self) -> tuple[FileSystem, FileSystem]:
        """(nodefs, imagefs)."""
        ...

    def images_share_disk(self) -> bool:
        """Whether both are one file system."""
        ...

    def pids(self) -> Observation:
        """Processes that can still be made."""
        ...


class Pods(Protocol):
    """The pods of the node: see room.Room."""

    def admitted(self) -> Iterable[Pod]:
        """Those that hold room, also while they end."""
        ...


class Reclaim(Protocol):
    """What a node can give up before it ends a pod."""

    async def dead_containers(self) -> None:
        """Delete the containers of pods that have ended; returns when their files are gone, or it takes too long."""
        ...

    async def unused_images(self) -> None:
        """Delete images that no container holds."""
        ...


Record = Callable[[Pod, str, str, str], None]


class Eviction:
    """One node's eviction manager. `conditions` is what the node's status must show; `changed` hears (before, now)."""

    def __init__(
        self,
        thresholds: Thresholds,
        figures: Figures,
        pods: Pods,
        reclaim: Reclaim,
        *,
        end: Callable[[str, Ending], None],
        record: Record,
        told: Callable[[str, str], None],
        changed: Callable[[frozenset[str], frozenset[str]], None],
        clock: Clock,
        soft_grace: int = 0,
    ) -> None:
        self.conditions: frozenset[str] = frozenset()
        self._thresholds, self._figures, self._pods = thresholds, figures, pods
        self._reclaim = reclaim
        self._end, self._record, self._told, self._changed = end, record, told, changed
        self._clock, self._soft_grace = clock, soft_grace
        self._leaving: set[str] = set()  # pods that were told to go and are still here
        self._patience = 0.0  # until when the last of them is waited for
        self._due = asyncio.Event()

    async def run(self, memory_pressure: str = "") -> None:
        """Look until cancelled; `memory_pressure` is the PSI file of the node's cgroup, where there is one."""
        with self._woken_by(memory_pressure):
            while True:
                try:
                    await self.look()
                except Exception:
                    # The top of the loop: figures that cannot be read now must not end the node's protection.
                    log.exception("eviction: another look in %.0f s", PERIOD)
                timer = self._clock.call_later(PERIOD, self._due.set)
                await self._due.wait()
                timer.cancel()
                self._due.clear()

    async def look(self) -> str:
        """One look; returns the uid of the pod that was told to go, or ""."""
        self._leaving &= {pod.metadata.uid for pod in self._pods.admitted()}
        judged = self._thresholds.judge(await self._observe(), self._clock.now())
        self._show(judged)
        if gone := await self._beyond_own_limits():
            return gone
        if not judged.acting or (self._leaving and self._clock.now() < self._patience):
            return ""
        met = judged.acting[0]
        self._told("EvictionThresholdMet", f"Attempting to reclaim {met.resource}")
        return "" if await self._reclaimed(met) else await self._evict_for(met)

    async def _reclaimed(self, met: Met) -> bool:
        """Whether enough is free again without a pod ended (reclaimNodeLevelResources)."""
        if not met.is_disk:
            return False
        shared = self._figures.images_share_disk()
        if shared or met.signal.startswith("nodefs"):
            await self._reclaim.dead_containers()
        if shared or met.signal.startswith("imagefs"):
            await self._reclaim.unused_images()
        return not self._thresholds.still_short(await self._observe())

    def _show(self, judged: Judgement) -> None:
        if judged.conditions != self.conditions:
            before, self.conditions = self.conditions, judged.conditions
            self._changed(before, judged.conditions)

    async def _observe(self) -> dict[str, Observation]:
        nodefs, imagefs = self._figures.file_systems()
        observed = dict(await self._figures.memory())
        for name, found in (("nodefs", nodefs), ("imagefs", imagefs)):
            observed[f"{name}.available"] = Observation(found.available, found.capacity)
            observed[f"{name}.inodesFree"] = Observation(found.inodes_free, found.inodes)
        return observed | {"pid.available": self._figures.pids()}

    async def _beyond_own_limits(self) -> str:
        """End pods that hold more on disk than they may."""
        pods = {pod.metadata.uid: pod for pod in self._staying() if localstorage.is_limited(pod)}
        if not pods:
            return ""
        disks = await self._figures.disks(lambda pod: pod.metadata.uid in pods)
        for uid, disk in disks.items():
            excess = localstorage.excess(pods[uid], disk) if uid in pods else None
            if excess is not None and self._evict(pods[uid], excess):
                return uid
        return ""

    def _staying(self) -> list[Pod]:
        """The pods that could be told to go."""
        return [pod for pod in self._pods.admitted() if pod.metadata.uid not in self._leaving]

    async def _evict_for(self, met: Met) -> str:
        chosen = ranking.choose(await self._candidates(met.resource), met.resource)
        if chosen is None:
            log.warning("the node is short of %s, and there is no pod to evict", met.resource)
            return ""
        self._evict(chosen.pod, ranking.eviction(chosen, met, self._soft_grace))
        return chosen.pod.metadata.uid

    def _evict(self, pod: Pod, ending: Ending) -> bool:
        if is_critical(pod):
            return False
        self._leaving.add(pod.metadata.uid)
        self._patience = self._clock.now() + CLEANUP_SECONDS
        self._record(pod, "Warning", ending.reason, ending.message)
        self._end(pod.metadata.uid, ending)
        return True

    async def _candidates(self, resource: str) -> list[Candidate]:
        """Every pod that runs, with what it uses of the resource."""
        if resource in ("memory", "pids"):
            use = await self._figures.usage(pressures=False)
            staying = [each for each in use.pods if each.pod.metadata.uid not in self._leaving]
            return [_by_memory(each) if resource == "memory" else _by_processes(each) for each in staying]
        disks = await self._figures.disks()
        pods = [pod for pod in self._staying() if pod.metadata.uid in disks]
        return [_by_disk(pod, disks[pod.metadata.uid], resource) for pod in pods]

    @contextmanager
    def _woken_by(self, path: str) -> Iterator[None]:
        """Look again when the kernel says that tasks of the node stall."""
        trigger = -1
        with suppress(OSError):
            trigger = pressure.open_trigger(path) if path else -1
        if trigger < 0:
            yield
            return

        def stalled() -> None:
            pressure.take(trigger)
            self._due.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(trigger, stalled)
        try:
            yield
        finally:
            loop.remove_reader(trigger)
            pressure.close_trigger(trigger)


def _by_memory(use: PodUse) -> Candidate:
    containers = {each.status.name: each.reading.stats.memory_working_set or 0 for each in use.containers}
    return Candidate(use.pod, use.reading.stats.memory_working_set or 0, containers)


def _by_processes(use: PodUse) -> Candidate:
    return Candidate(use.pod, use.reading.stats.pids or 0)


def _by_disk(pod: Pod, disk: PodDisk, resource: str) -> Candidate:
    def amount(use: Use) -> int:
        return use.inodes if resource == "inodes" else use.bytes

    names = disk.rootfs.keys() | disk.logs.keys()
    held = {name: disk.rootfs.get(name, Use()).plus(disk.logs.get(name, Use())) for name in names}
    shown = {} if resource == "inodes" else {name: use.bytes for name, use in held.items()}
    return Candidate(pod, amount(disk.total()), shown)
