"""/stats/summary: readings as the kubelet's stats.k8s.io/v1alpha1 Summary (pkg/kubelet/apis/stats/v1alpha1).

Pure, but for what it is given: figures of cgroups (`usage`), disks (`diskusage`) and network interfaces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from minikube_raw.client.clock import timestamp
from minikube_raw.kubelet.usage import ContainerUse, NodeUse, PodUse, Reading
from minikube_raw.linux.cgroups import Pressure, Stats
from minikube_raw.linux.disk_usage import FileSystem, Use

Json = dict[str, Any]


class PodDisk(msgspec.Struct, frozen=True):
    """What a pod holds on disk: by container name (writable layer, logs), by volume name, and when it was measured."""

    at: float = 0.0
    rootfs: dict[str, Use] = {}
    logs: dict[str, Use] = {}
    volumes: dict[str, Use] = {}
    memory_volumes: dict[str, Use] = {}  # emptyDirs in memory: no disk

    def total(self) -> Use:
        """Everything that counts as ephemeral storage."""
        everything = Use()
        for group in (self.rootfs, self.logs, self.volumes):
            for each in group.values():
                everything = everything.plus(each)
        return everything


class Around(msgspec.Struct, frozen=True):
    """What else the summary tells of a node. `network` gives that of a process ("self" or a pid)."""

    name: str
    disk: FileSystem
    images: FileSystem
    disks: dict[str, PodDisk]  # by pod uid
    network: Callable[[str, str], Json | None]
    processes: int
    most_processes: int


def summary(use: NodeUse, around: Around, *, only_cpu_and_memory: bool = False) -> Json:
    """The whole document."""
    full = not only_cpu_and_memory
    at = _time(use.node.at)
    node: Json = {
        "nodeName": around.name,
        "systemContainers": [{"name": "pods", **_figures(use.all_pods, full, psi=True)}],
        **_figures(use.node, full, psi=True),
    }
    node["memory"]["availableBytes"] = use.available
    if full:
        node |= {
            "network": around.network("self", at),
            "fs": file_system(around.disk, at),
            "runtime": {"imageFs": file_system(around.images, at), "containerFs": file_system(around.images, at)},
            "rlimit": {"time": at, "maxpid": around.most_processes, "curproc": around.processes},
        }
    return {"node": node, "pods": [_pod(each, around, full) for each in use.pods]}


def _pod(use: PodUse, around: Around, full: bool) -> Json:
    meta = use.pod.metadata
    disk = around.disks.get(meta.uid)
    told: Json = {
        "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "containers": [_container(each, around, disk, full) for each in use.containers],
        **_figures(use.reading, full, psi=True),
    }
    if not full:
        return told
    at = _time(use.reading.at)
    if use.process and not use.pod.spec.host_network:
        told["network"] = around.network(str(use.process), at)
    if disk is not None:
        told["volume"] = [
            {"name": name, **_used(around.disk, held, _time(disk.at))}
            for name, held in (disk.volumes | disk.memory_volumes).items()
        ]
        told["ephemeral-storage"] = _used(around.disk, disk.total(), _time(disk.at))
    told["process_stats"] = {"process_count": use.reading.stats.pids or 0}
    return told


def _container(use: ContainerUse, around: Around, disk: PodDisk | None, full: bool) -> Json:
    name = use.status.name
    told: Json = {"name": name, **_figures(use.reading, full, psi=full)}
    if full and disk is not None:
        told["rootfs"] = _used(around.images, disk.rootfs.get(name, Use()), _time(disk.at))
        told["logs"] = _used(around.disk, disk.logs.get(name, Use()), _time(disk.at))
    return told


def _figures(reading: Reading, full: bool, *, psi: bool) -> Json:
    stats, at = reading.stats, _time(reading.at)

    def pressed(resource: str) -> Json:
        found = reading.pressures.get(resource)
        return {"psi": {kind: _pressure(line) for kind, line in found.items()}} if psi and found else {}

    told: Json = {
        "startTime": _time(reading.since),
        "cpu": {
            "time": at,
            **({} if reading.cores is None else {"usageNanoCores": int(reading.cores * 1e9)}),
            "usageCoreNanoSeconds": stats.cpu_usage_ns or 0,
            **pressed("cpu"),
        },
        "memory": {
            "time": at,
            **_available(reading),
            "usageBytes": stats.memory_usage or 0,
            "workingSetBytes": stats.memory_working_set or 0,
            "rssBytes": stats.memory_rss or 0,
            "pageFaults": stats.page_faults or 0,
            "majorPageFaults": stats.page_faults_major or 0,
            **pressed("memory"),
        },
        "swap": {"time": at, **_swap_available(stats), "swapUsageBytes": stats.swap_usage or 0},
    }
    return told | ({"io": {"time": at, **pressed("io")}} if full else {})


def _available(reading: Reading) -> Json:
    limit = reading.stats.memory_limit
    return {} if limit is None else {"availableBytes": max(limit - (reading.stats.memory_working_set or 0), 0)}


def _swap_available(stats: Stats) -> Json:
    return (
        {} if stats.swap_limit is None else {"swapAvailableBytes": max(stats.swap_limit - (stats.swap_usage or 0), 0)}
    )


def _pressure(line: Pressure) -> Json:
    """Totals are ns here, µs in the kernel's file."""
    return {"total": line.total_us * 1000, "avg10": line.avg10, "avg60": line.avg60, "avg300": line.avg300}


def file_system(disk: FileSystem, at: str) -> Json:
    """A file system as FsStats."""
    return {**_used(disk, Use(disk.used, disk.inodes_used), at)}


def _used(disk: FileSystem, held: Use, at: str) -> Json:
    return {
        "time": at,
        "availableBytes": disk.available,
        "capacityBytes": disk.capacity,
        "usedBytes": held.bytes,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": held.inodes,
    }


def _time(at: float) -> str:
    return timestamp(at)
