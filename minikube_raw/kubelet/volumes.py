"""A pod's volumes on the node: made before its containers, refreshed when objects change, removed after them.

Disk volumes lie below pods/<uid>/volumes. Files that must not reach a disk (secrets, tokens, downward files) lie in one tmpfs
of the node's own mount namespace, a directory per pod: no pod costs a mount for them. Blocking: the caller runs it in a thread.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from minikube_raw.api import quantity
from minikube_raw.api.core import Container, Pod, Volume, VolumeMount
from minikube_raw.api.storage import PersistentVolume
from minikube_raw.kubelet import atomicwriter, convert, emptydir, env, hostpath, persistent, projection, subpaths
from minikube_raw.kubelet.mounterror import MountError
from minikube_raw.kubelet.pods import all_containers
from minikube_raw.linux import features, mounts, removal
from minikube_raw.runtime import cri

_TRASH = ".removed"


class VolumeManager:
    """Sets up and tears down volumes below `pods_dir`, and in a tmpfs at `memory_dir`."""

    def __init__(self, pods_dir: Path, memory_dir: Path | None = None) -> None:
        self._pods_dir = pods_dir
        self._memory_dir = memory_dir
        self._memory_lock = threading.Lock()
        self._persistent: dict[str, Mapping[str, PersistentVolume]] = {}

    def pod_dir(self, uid: str) -> Path:
        """Where everything of one pod lies."""
        return self._pods_dir / uid

    def known_pods(self) -> list[str]:
        """Uids of pods that have a directory."""
        found: set[str] = set()
        for directory in filter(None, (self._pods_dir, self._memory_dir)):
            found |= set(os.listdir(directory)) if directory.is_dir() else set()
        return sorted(found - {_TRASH})

    def knows(self, pod: Pod) -> bool:
        """Whether `set_up` has been here since this process began: `mounts` relies on it for claims."""
        return pod.metadata.uid in self._persistent

    def set_up(self, pod: Pod, sources: projection.Sources) -> None:
        """Make every volume; doing it again confirms it and refreshes files made from objects. Raises MountError."""
        _check_modes(pod, sources.persistent)
        self._check_exclusive(pod, sources.persistent)
        for volume in pod.spec.volumes:
            try:
                self._set_up(pod, volume, sources)
            except (OSError, projection.PayloadError, quantity.QuantityError, ValueError) as error:
                name = (
                    sources.persistent[volume.name].metadata.name if volume.name in sources.persistent else volume.name
                )
                raise MountError(name, str(error)) from error
        self._persistent[pod.metadata.uid] = sources.persistent

    def tear_down(self, uid: str, *, only_volumes: bool = False) -> bool:
        """Unmount everything of a pod and take it, or its volumes, out of sight, into `trash`.

        False when there was nothing.
        """
        self._persistent.pop(uid, None)
        if self._memory_dir is not None:
            shutil.rmtree(self._memory_dir / uid, ignore_errors=True)
        directory = self.pod_dir(uid) / "volumes" if only_volumes else self.pod_dir(uid)
        if not directory.exists():
            return False
        for point in reversed(mounts.mount_points_below(str(directory))[1:]):
            mounts.umount_all(point)
        return removal.put_aside(str(directory), self.trash)

    @property
    def trash(self) -> str:
        """The directory that holds what `tear_down` put aside, also before a crash, until somebody empties it."""
        return str(self._pods_dir / _TRASH)

    def mounts(
        self, pod: Pod, container: Container, variables: Mapping[str, str], images: Mapping[str, str] | None = None
    ) -> tuple[cri.Mount, ...]:
        """The container's mounts; `images` are ids by volume name. Raises env.ConfigError for one that cannot be."""
        volumes, images = {volume.name: volume for volume in pod.spec.volumes}, images or {}
        return tuple(
            _image_mount(mount, images[mount.name], variables)
            if mount.name in images
            else self._mount(pod, container, volumes, mount, variables)
            for mount in container.volume_mounts
        )

    def devices(self, pod: Pod, container: Container) -> tuple[cri.Device, ...]:
        """The container's raw devices. Raises env.ConfigError for one that cannot be."""
        volumes = {volume.name: volume for volume in pod.spec.volumes}
        found = []
        for device in container.volume_devices:
            volume = volumes.get(device.name)
            if volume is None:
                text = f'cannot find volume "{device.name}" to pass into container "{container.name}"'
                raise env.ConfigError(text)
            claim = volume.persistent_volume_claim
            permissions = "r" if claim is not None and claim.read_only else "rw"
            found.append(cri.Device(device.device_path, str(self._path(pod, volume)), permissions))
        return tuple(found)

    def path(self, pod: Pod, name: str) -> str:
        """Where a volume of the pod lies on the node. Raises env.ConfigError for one the pod has not."""
        for volume in pod.spec.volumes:
            if volume.name == name:
                return str(self._path(pod, volume))
        raise env.ConfigError(f'cannot find the volume "{name}" referenced by FileKeyRef')

    # -- one volume --------------------------------------------------------------------------------------------------

    def _path(self, pod: Pod, volume: Volume) -> Path:
        if volume.host_path is not None:
            return Path(volume.host_path.path)
        found = self._persistent.get(pod.metadata.uid, {}).get(volume.name)
        if found is not None:
            return Path(persistent.path_of(found))
        base = self.pod_dir(pod.metadata.uid) / "volumes"
        if volume.empty_dir is not None:
            return base / "kubernetes.io~empty-dir" / volume.name
        if volume.config_map is not None or self._memory_dir is None:
            return base / f"kubernetes.io~{_plugin(volume)}" / volume.name
        return self._memory_dir / pod.metadata.uid / f"kubernetes.io~{_plugin(volume)}" / volume.name

    def _set_up(self, pod: Pod, volume: Volume, sources: projection.Sources) -> None:
        if volume.host_path is not None:
            hostpath.set_up(volume.host_path)
        elif volume.name in sources.persistent:
            persistent.set_up(sources.persistent[volume.name], pod)
        elif volume.empty_dir is not None:
            emptydir.set_up(self._path(pod, volume), volume.empty_dir, pod, _memory(sources))
        elif projection.is_projected(volume):
            self._project(pod, volume, sources)
        elif volume.image is not None:
            pass  # the runtime sees to it, container by container
        elif volume.claim_name(pod.metadata.name):
            raise ValueError("this node has no API server that knows of claims")
        else:
            raise ValueError("this kind of volume is not supported on this node")

    def _project(self, pod: Pod, volume: Volume, sources: projection.Sources) -> None:
        files = projection.payload(pod, volume, sources)
        path, group = self._path(pod, volume), pod.spec.security_context.fs_group
        if volume.config_map is None and self._memory_dir is not None:
            with self._memory_lock:  # a second tmpfs would cover the first and the files of the pods that were quicker
                _ensure_memory(self._memory_dir, _memory(sources))
            emptydir.make_directory(path, group, sticky=True)
        else:
            emptydir.make_directory(path, group)
        atomicwriter.make_nested(path, _nested(pod, volume.name))
        atomicwriter.write(path, files, group=group)

    def _mount(
        self,
        pod: Pod,
        container: Container,
        volumes: Mapping[str, Volume],
        mount: VolumeMount,
        variables: Mapping[str, str],
    ) -> cri.Mount:
        volume = volumes.get(mount.name)
        if volume is None:
            raise env.ConfigError(f'cannot find volume "{mount.name}" to mount into container "{container.name}"')
        path, sub_path = str(self._path(pod, volume)), subpaths.asked(mount, variables)
        if sub_path:
            subpaths.prepare(path, sub_path, mount, container)
        claim = volume.persistent_volume_claim
        return cri.Mount(
            container_path=mount.mount_path,
            host_path=path,
            sub_path=sub_path,
            # Files made from objects are the API's, not the container's.
            readonly=mount.read_only or projection.is_projected(volume) or (claim is not None and claim.read_only),
            recursive_read_only=_recursive(mount),
            propagation=convert.mount_propagation(mount.mount_propagation),
        )

    def _check_exclusive(self, pod: Pod, volumes: Mapping[str, PersistentVolume]) -> None:
        """ReadWriteOncePod: one pod at a time. Raises MountError."""
        for volume in volumes.values():
            others = [uid for uid in self._persistent if uid != pod.metadata.uid]
            taken = any(
                volume.metadata.uid == each.metadata.uid for uid in others for each in self._persistent[uid].values()
            )
            if taken and "ReadWriteOncePod" in volume.spec.access_modes:
                text = "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
                raise MountError(volume.metadata.name, text)


def _image_mount(mount: VolumeMount, image: str, variables: Mapping[str, str]) -> cri.Mount:
    return cri.Mount(
        container_path=mount.mount_path, image=image, sub_path=subpaths.asked(mount, variables), readonly=True
    )


def _check_modes(pod: Pod, claimed: Mapping[str, PersistentVolume]) -> None:
    """Devices are passed on and directories are mounted, not the other way round. Raises MountError in the kubelet's words."""
    for container in all_containers(pod):
        places = [(mount.name, "volumeMounts", persistent.FILE_SYSTEM) for mount in container.volume_mounts]
        places += [(device.name, "volumeDevices", persistent.BLOCK) for device in container.volume_devices]
        for name, where, wanted in places:
            mode = claimed[name].spec.volume_mode if name in claimed else persistent.FILE_SYSTEM
            if mode != wanted:
                raise MountError(name, f"volume {name} has volumeMode {mode}, but is specified in {where}")


def needs_a_look(container: Container) -> bool:
    """Whether `mounts` has to touch the disk: with no subPath it is arithmetic."""
    return any(mount.sub_path or mount.sub_path_expr for mount in container.volume_mounts)


def recursive_read_only() -> bool:
    """Whether this node can make a mount read-only with all below it."""
    return features.mount_setattr()


def _plugin(volume: Volume) -> str:
    if volume.projected is not None:
        return "projected"
    if volume.config_map is not None:
        return "configmap"
    return "secret" if volume.secret is not None else "downward-api"


def _memory(sources: projection.Sources) -> int:
    return int(quantity.parse(sources.allocatable.get("memory", 0)).value())


def _ensure_memory(path: Path, size: int) -> None:
    """Mount the node's tmpfs for files made from objects, unless it is there: it lives as long as the mount namespace."""
    if os.path.ismount(path):
        return
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    emptydir.mount_memory(path, size, mode=stat.S_IRWXU)


def _nested(pod: Pod, name: str) -> Iterable[str]:
    """Yield the places, relative to a volume, where containers have others mounted inside it (MakeNestedMountpoints)."""
    for container in all_containers(pod):
        places = sorted({mount.mount_path.rstrip("/") for mount in container.volume_mounts})
        for mine in (mount for mount in container.volume_mounts if mount.name == name):
            top, inside = mine.mount_path.rstrip("/") + "/", ""
            for place in places:
                if place.startswith(top) and not (inside and place.startswith(inside)):
                    inside = f"{place}/"
                    yield place.removeprefix(top)


def _recursive(mount: VolumeMount) -> bool:
    """Whether a mount is read-only with all below it. Raises env.ConfigError in the kubelet's words."""
    if mount.recursive_read_only in ("", "Disabled"):
        return False
    asked = f'volume "{mount.name}" requested recursive read-only mode, but it is not'
    if not mount.read_only:
        raise env.ConfigError(f"failed to resolve recursive read-only mode: {asked} read-only")
    if mount.mount_propagation not in ("", "None"):
        text = f'{asked} compatible with propagation "{mount.mount_propagation}"'
        raise env.ConfigError(f"failed to resolve recursive read-only mode: {text}")
    if mount.recursive_read_only == "Enabled" and not recursive_read_only():
        raise env.ConfigError(f"failed to resolve recursive read-only mode: {asked} supported by the runtime")
    return recursive_read_only()
