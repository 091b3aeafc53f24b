"""emptyDir volumes: a directory, a tmpfs, or huge pages, that lives as long as the pod.

Modes and sizes are the kubelet's (pkg/volume/emptydir): 0777, in memory 1777, with fsGroup the group's and setgid; a tmpfs is
as large as the least of its sizeLimit, the pod's memory limit and what the node can give.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from minikube_raw.api import quantity
from minikube_raw.api.core import EmptyDirVolumeSource, Pod
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.pods import all_containers
from minikube_raw.linux import features, mounts

_MODE = 0o777
_HUGE_PAGES = "HugePages"
_RESOURCE = "hugepages-"


def set_up(path: Path, source: EmptyDirVolumeSource, pod: Pod, node_memory: int) -> None:
    """Make the volume once; a file system of an earlier boot is gone and is mounted anew. Raises ValueError, OSError."""
    group = pod.spec.security_context.fs_group
    if source.medium in ("", "Memory"):
        make_directory(path, group)
    if source.medium == "Memory" and not os.path.ismount(path):
        mount_memory(path, memory_size(source, pod, node_memory), group)
    elif source.medium.startswith(_HUGE_PAGES):
        option = f"pagesize={page_size(source.medium, pod)}"
        make_directory(path, group)
        if not os.path.ismount(path):
            mounts.mount("nodev", str(path), "hugetlbfs", 0, f"{option},mode={_mode(group):o}{_gid(group)}")
    elif source.medium not in ("", "Memory"):
        raise ValueError(f'unknown storage medium "{source.medium}"')


def make_directory(path: Path, group: int | None, *, sticky: bool = False) -> None:
    """Make a world-writable directory, of `group` if one is given; it appears with its owner and mode, or not at all."""
    if path.is_dir():
        return
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}")
    fresh.mkdir(exist_ok=True)
    if group is not None:
        os.chown(fresh, -1, group)
    fresh.chmod(_mode(group) | (stat.S_ISVTX if sticky else 0))
    fresh.rename(path)


def mount_memory(path: Path, size: int, group: int | None = None, mode: int = _MODE | stat.S_ISVTX) -> None:
    """Mount a tmpfs of `size` bytes, 0 for no limit of its own."""
    options = "noswap" if features.tmpfs_noswap() else ""
    bits = mode | (stat.S_ISGID if group is not None else 0)
    text = ",".join(filter(None, [options, _gid(group).lstrip(",")]))
    mounts.tmpfs(str(path), mode=bits, size=str(size) if size else "", flags=0, options=text)


def memory_size(source: EmptyDirVolumeSource, pod: Pod, node_memory: int) -> int:
    """The size of a tmpfs in bytes: the least of sizeLimit, the pod's memory limit and the node's memory."""
    limit = int(quantity.parse(source.size_limit).value()) if source.size_limit is not None else 0
    sizes = (limit, qos.pod_resources(pod).memory_limit_in_bytes or 0, node_memory)
    return min((size for size in sizes if size > 0), default=0)


def page_size(medium: str, pod: Pod) -> str:
    """The pages of a HugePages medium, which the containers must ask for. Raises ValueError in upstream's words."""
    requests = [qos.requests_of(each) for each in all_containers(pod)]
    sizes = {name.removeprefix(_RESOURCE) for each in requests for name in each if name.startswith(_RESOURCE)}
    if medium != _HUGE_PAGES:
        sizes &= {medium.removeprefix(f"{_HUGE_PAGES}-")}
    if len(sizes) > 1:
        raise ValueError(f"medium: {medium} can't be used if container requests multiple huge page sizes")
    if not sizes:
        text = "hugePages storage requested, but there is no resource request for huge pages"
        raise ValueError(f"medium {medium}: {text}")
    return sizes.pop().removesuffix("i")


def _mode(group: int | None) -> int:
    return _MODE | (stat.S_ISGID if group is not None else 0)


def _gid(group: int | None) -> str:
    return "" if group is None else f",gid={group}"
