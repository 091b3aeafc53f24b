"""What pods hold on the node's disk: writable layers, logs and emptyDirs, measured by walking them.

Without project quotas a walk is all there is, so its rate is bounded: a pod whose walk took t seconds is not walked again
for 20 t (and 10 s at least), which is at most one twentieth of a core for the largest of trees. Pods without limits are
walked only when somebody asks for their figures or the node must choose whom to evict.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.kubelet.summary import PodDisk
from minikube_raw.linux.disk_usage import Use, file_system, tree

LEAST_PAUSE = 10.0
PAUSE_PER_SECOND = 20.0


class Holding(msgspec.Struct, frozen=True):
    """Where a pod's data lies: its writable layers by container, its logs, its volumes' directory."""

    pod: Pod
    layers: dict[str, str]
    logs: Path
    volumes: Path


class _Known(msgspec.Struct):
    disk: PodDisk
    not_before: float


class DiskUsage:
    """The pods of one node. Blocking; called in a thread, one call at a time."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._known: dict[str, _Known] = {}

    def measure(self, holdings: Iterable[Holding], max_age: float = 0.0) -> dict[str, PodDisk]:
        """What each pod holds, by uid; walked anew where the last walk is older than `max_age` and its pause is over."""
        measured = {}
        for holding in holdings:
            uid = holding.pod.metadata.uid
            known = self._known.get(uid)
            if known is None or self._now() >= max(known.not_before, known.disk.at + max_age):
                known = self._known[uid] = self._walk(holding)
            measured[uid] = known.disk
        return measured

    def forget_all_but(self, uids: set[str]) -> None:
        """Drop pods that are gone."""
        self._known = {uid: known for uid, known in self._known.items() if uid in uids}

    def _walk(self, holding: Holding) -> _Known:
        began = time.monotonic()
        volumes, in_memory = _empty_dirs(holding)
        disk = PodDisk(
            at=self._now(),
            rootfs={name: tree(path) for name, path in holding.layers.items()},
            logs={name: tree(str(holding.logs / name)) for name in holding.layers},
            volumes=volumes,
            memory_volumes=in_memory,
        )
        took = time.monotonic() - began
        return _Known(disk, self._now() + max(LEAST_PAUSE, PAUSE_PER_SECOND * took))


def _empty_dirs(holding: Holding) -> tuple[dict[str, Use], dict[str, Use]]:
    """(on disk, in memory) by volume name; a tmpfs knows its use without a walk."""
    on_disk, in_memory = {}, {}
    for volume in holding.pod.spec.volumes:
        if volume.empty_dir is None:
            continue
        path = str(holding.volumes / "kubernetes.io~empty-dir" / volume.name)
        if volume.empty_dir.medium != "Memory":
            on_disk[volume.name] = tree(path)
        elif os.path.isdir(path):
            found = file_system(path)
            in_memory[volume.name] = Use(found.used, found.inodes_used)
    return on_disk, in_memory
