"""A pod's volumes on the node: directories made before its containers, removed after them, and the mounts they become.

Everything lies below the node's pods/<uid>/volumes. Volumes in memory and those with secrets are tmpfs mounts there,
made in the node's own mount namespace. Blocking: the caller runs it in a thread.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from minikube_raw.api import quantity
from minikube_raw.api.core import Container, EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume, VolumeMount
from minikube_raw.kubelet import convert, env, projection
from minikube_raw.linux import mounts
from minikube_raw.linux.paths import make_directories_in_root
from minikube_raw.runtime import cri


class MountError(Exception):
    """A volume cannot be set up; the text is the FailedMount Event's."""

    def __init__(self, volume: str, why: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {why}')


class VolumeManager:
    """Sets up and tears down volumes below `pods_dir`."""

    def __init__(self, pods_dir: Path) -> None:
        self._pods_dir = pods_dir

    def pod_dir(self, uid: str) -> Path:
        """Where everything of one pod lies."""
        return self._pods_dir / uid

    def known_pods(self) -> list[str]:
        """Uids of pods that have a directory."""
        return [entry.name for entry in self._pods_dir.iterdir()] if self._pods_dir.is_dir() else []

    def set_up(self, pod: Pod, sources: projection.Sources) -> None:
        """Make every volume; doing it again confirms it and refreshes files made from objects. Raises MountError."""
        for volume in pod.spec.volumes:
            try:
                self._set_up(pod, volume, sources)
            except (OSError, projection.PayloadError, quantity.QuantityError, ValueError) as error:
                raise MountError(volume.name, str(error)) from error

    def tear_down(self, uid: str) -> None:
        """Unmount and remove everything of a pod; a missing directory is fine."""
        directory = self.pod_dir(uid)
        if not directory.exists():
            return
        for point in reversed(mounts.mount_points_below(str(directory))[1:]):
            mounts.umount_all(point)
        shutil.rmtree(directory, ignore_errors=True)

    def mounts(self, pod: Pod, container: Container, variables: dict[str, str]) -> tuple[cri.Mount, ...]:
        """The container's bind mounts. Raises env.ConfigError for a subPath that leads outside its volume."""
        volumes = {volume.name: volume for volume in pod.spec.volumes}
        return tuple(self._mount(pod, volumes, mount, variables) for mount in container.volume_mounts)

    # -- one volume --------------------------------------------------------------------------------------------------

    def _path(self, pod: Pod, volume: Volume) -> Path:
        plugin = "projected" if volume.projected else "configmap" if volume.config_map else "secret"
        if volume.empty_dir is not None:
            plugin = "empty-dir"
        elif volume.downward_api is not None:
            plugin = "downward-api"
        return self.pod_dir(pod.metadata.uid) / "volumes" / f"kubernetes.io~{plugin}" / volume.name

    def _set_up(self, pod: Pod, volume: Volume, sources: projection.Sources) -> None:
        if volume.host_path is not None:
            _check_host_path(volume.host_path)
            return
        path = self._path(pod, volume)
        group = pod.spec.security_context.fs_group
        if volume.empty_dir is not None:
            _empty_dir(path, volume.empty_dir, group)
            return
        if not projection.is_projected(volume):
            raise ValueError("this kind of volume is not supported on this node")
        in_memory = volume.config_map is None
        files = projection.payload(pod, volume, sources)
        _directory(path, in_memory=in_memory, size="", group=group)
        projection.write(path, files, group=group)

    def _mount(self, pod: Pod, volumes: dict[str, Volume], mount: VolumeMount, variables: dict[str, str]) -> cri.Mount:
        volume = volumes.get(mount.name)
        if volume is None:
            raise env.ConfigError(f'volume "{mount.name}" is not defined')
        base = volume.host_path.path if volume.host_path is not None else str(self._path(pod, volume))
        sub_path = mount.sub_path or env.expand(mount.sub_path_expr, variables)
        return cri.Mount(
            container_path=mount.mount_path,
            host_path=_below(base, sub_path, mount) if sub_path else base,
            # Files made from objects are the API's, not the container's.
            readonly=mount.read_only or projection.is_projected(volume),
            propagation=convert.mount_propagation(mount.mount_propagation),
        )


def _empty_dir(path: Path, source: EmptyDirVolumeSource, group: int | None) -> None:
    size = str(quantity.parse(source.size_limit).value()) if source.size_limit is not None else ""
    _directory(path, in_memory=source.medium == "Memory", size=size, group=group, mode=0o777)


def _directory(path: Path, *, in_memory: bool, size: str, group: int | None, mode: int = 0o777) -> None:
    """Make a volume's directory once; a tmpfs of an earlier boot is gone and is mounted anew."""
    fresh = not path.is_dir()
    path.mkdir(parents=True, exist_ok=True)
    if in_memory and not os.path.ismount(path):
        mounts.tmpfs(str(path), mode=mode | stat.S_ISVTX, size=size)
        fresh = True
    if not fresh:
        return
    if group is not None:
        os.chown(path, -1, group)
    bits = (stat.S_ISVTX if in_memory else 0) | (stat.S_ISGID if group is not None else 0)
    os.chmod(path, mode | bits)


_HOST_PATH_CHECKS = {
    "Directory": (stat.S_ISDIR, "is not a directory"),
    "File": (stat.S_ISREG, "is not a file"),
    "Socket": (stat.S_ISSOCK, "is not a socket"),
    "CharDevice": (stat.S_ISCHR, "is not a character device"),
    "BlockDevice": (stat.S_ISBLK, "is not a block device"),
}


def _check_host_path(source: HostPathVolumeSource) -> None:
    """Make what …OrCreate asks for, and refuse what is not of the type asked for (pkg/volume/hostpath)."""
    path = Path(source.path)
    if source.type == "DirectoryOrCreate":
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    elif source.type == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    check = _HOST_PATH_CHECKS.get(source.type.removesuffix("OrCreate"))
    if check is None:
        return
    if not path.exists() or not check[0](path.stat().st_mode):
        raise ValueError(f"hostPath type check failed: {source.path} {check[1]}")


def _below(base: str, sub_path: str, mount: VolumeMount) -> str:
    """A path inside a volume, made as directories when missing; links are resolved inside the volume only."""
    if sub_path.startswith("/") or ".." in sub_path.split("/"):
        raise env.ConfigError(f'failed to prepare subPath for volumeMount "{mount.name}": must not contain ".."')
    path = os.path.join(base, sub_path)
    if os.path.lexists(path):
        return _resolved(base, path, mount)
    root = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(make_directories_in_root(root, sub_path, 0o777))
    except OSError as error:
        raise env.ConfigError(f'failed to create subPath directory for volumeMount "{mount.name}": {error}') from error
    finally:
        os.close(root)
    return _resolved(base, path, mount)


def _resolved(base: str, path: str, mount: VolumeMount) -> str:
    real, top = os.path.realpath(path), os.path.realpath(base)
    if real != top and not real.startswith(top + "/"):
        raise env.ConfigError(f'failed to prepare subPath for volumeMount "{mount.name}": it leads outside the volume')
    return real
