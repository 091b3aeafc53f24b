"""The node's figures for whoever asks: eviction and the kubelet's API. Puts readings of cgroups and disks together.

Finding out what runs happens on the event loop, reading in threads.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import seconds_of
from minikube_raw.kubelet import exposition, interfaces, node, qos, summary
from minikube_raw.kubelet.diskusage import DiskUsage, Holding
from minikube_raw.kubelet.measures import Measure
from minikube_raw.kubelet.nodeview import Node
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.probecounts import ProbeCounts
from minikube_raw.kubelet.summary import PodDisk
from minikube_raw.kubelet.thresholds import Observation
from minikube_raw.kubelet.usage import NodeUse, Subject, UsageReader
from minikube_raw.linux import mounts
from minikube_raw.linux.disk_usage import FileSystem, device_name, file_system
from minikube_raw.runtime import cri

Json = dict[str, Any]
DISK_AGE = 60.0  # seconds that a pod's figures of disk use stay good for the summary


class StatsProvider:
    """One node's figures."""

    def __init__(
        self,
        options: KubeletOptions,
        agent: Node,
        runtime: cri.RuntimeService,
        counted: Callable[[], Awaitable[Sequence[Measure]]] | None = None,
        probed: ProbeCounts | None = None,
    ) -> None:
        self._options = options
        self._counted = counted
        self._probed = probed if probed is not None else ProbeCounts()
        self._agent = agent
        self._runtime = runtime
        self._reader = UsageReader(options.cgroup_root)
        self._disks = DiskUsage()
        self._disk_lock = asyncio.Lock()

    async def usage(self, *, pressures: bool = True) -> NodeUse:
        """CPU and memory of everything that runs."""
        subjects = [await self._subject(each.pod, each.status) for each in self._agent.pods()]
        running = [subject for subject in subjects if subject.running]
        return await asyncio.to_thread(functools.partial(self._reader.read, running, pressures=pressures))

    async def disks(self, wanted: Callable[[Pod], bool] = lambda pod: True, max_age: float = 0.0) -> dict[str, PodDisk]:
        """What pods hold on disk, by uid, no older than `max_age` if their last walk allows another."""
        pods = [each.pod for each in self._agent.pods()]
        holdings = [await self._holding(pod) for pod in pods if wanted(pod)]
        async with self._disk_lock:
            self._disks.forget_all_but({pod.metadata.uid for pod in pods})
            return await asyncio.to_thread(self._disks.measure, holdings, max_age)

    async def memory(self) -> dict[str, Observation]:
        """The memory signals of eviction: a handful of files, read often."""
        return await asyncio.to_thread(self._reader.memory)

    def pids(self) -> Observation:
        """Processes and threads the kernel can still make (/proc/loadavg counts both)."""
        most = node.most_pids()
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
        return Observation(max(most - running, 0), most)

    def file_systems(self) -> tuple[FileSystem, FileSystem]:
        """(nodefs, imagefs): where pods write, where images lie."""
        return file_system(self._options.state_dir), file_system(self._options.images_dir)

    def images_share_disk(self) -> bool:
        """Whether images lie on the file system that pods write to."""
        return os.stat(self._options.state_dir).st_dev == os.stat(self._options.images_dir).st_dev

    async def summary(self, *, only_cpu_and_memory: bool = False) -> Json:
        """/stats/summary."""
        use = await self.usage()
        disks = {} if only_cpu_and_memory else await self.disks(max_age=DISK_AGE)
        nodefs, imagefs = self.file_systems()
        around = summary.Around(
            name=self._options.node_name,
            disk=nodefs,
            images=imagefs,
            disks=disks,
            network=lambda process, at: interfaces.network(process, "eth0", at),
            processes=use.node.stats.pids or len(psutil.pids()),
            most_processes=node.most_pids(),
        )
        return summary.summary(use, around, only_cpu_and_memory=only_cpu_and_memory)

    async def cadvisor(self) -> str:
        """/metrics/cadvisor."""
        use, disks = await self.usage(), await self.disks(max_age=DISK_AGE)
        return await asyncio.to_thread(lambda: exposition.cadvisor(use, self._beside(disks)))

    def _beside(self, disks: dict[str, PodDisk]) -> exposition.Beside:
        own, images = mounts.device_of(self._options.state_dir), mounts.device_of(self._options.images_dir)
        nodefs, imagefs = self.file_systems()
        return exposition.Beside({images: imagefs, own: nodefs}, own, disks, interfaces.traffic, device_name)

    async def metrics(self) -> str:
        """/metrics."""
        subjects = [await self._subject(each.pod, each.status) for each in self._agent.pods()]
        running = [subject for subject in subjects if subject.running]
        return exposition.kubelet(
            running_pods=len(running),
            running_containers=sum(len(subject.running) for subject in running),
            version=node.KUBERNETES_VERSION,
            node=self._options.node_name,
            counted=await self._counted() if self._counted is not None else (),
        )

    def probes(self) -> str:
        """/metrics/probes."""
        return exposition.probes(self._probed)

    async def _containers(self, pod: Pod) -> list[cri.ContainerStatus]:
        """Newest attempts first."""
        sandboxes = await self._runtime.list_pod_sandboxes(pod.metadata.uid)
        return [each for sandbox in sandboxes for each in await self._runtime.list_containers(sandbox.id)]

    async def _subject(self, pod: Pod, status: Json) -> Subject:
        running = [each for each in await self._containers(pod) if each.state is cri.ContainerState.RUNNING]
        since = seconds_of(status.get("startTime")) or min((each.started_at / 1e9 for each in running), default=0.0)
        return Subject(pod, qos.cgroup_parent(pod), since, tuple(running))

    async def _holding(self, pod: Pod) -> Holding:
        layers: dict[str, str] = {}
        for each in await self._containers(pod):
            layers.setdefault(each.name, self._runtime.writable_layer(each.id))
        volumes = Path(self._options.pods_dir, pod.metadata.uid, "volumes")
        return Holding(pod, layers, self._agent.log_directory(pod), volumes)
