"""Containers made of a checkpoint (an image that is one, oci/checkpoints.py): what is known and made before CRIU makes the processes.

As with containerd and CRI-O, CreateContainer finds the image below the checkpoint, brings the new writable layer to the state
of the old one and looks whether the pod has what the processes will look for; StartContainer restores instead of executing
(executors.py). An archive is anybody's, so nothing in it is opened by a link.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minikube_raw.oci import layers, reference
from minikube_raw.oci.checkpoints import CONFIG
from minikube_raw.oci.images import Image
from minikube_raw.oci.snapshots import Snapshot

from .checkpointing import DESCRIPTORS, external_places, find_criu, rfc3339
from .cri import CREATE_ERROR, ContainerConfig, NamespaceMode, PodSandboxConfig, RuntimeServiceError

RESTORING_VERSION = 3  # of wire's protocol, from which on keepers restore; an older one would execute instead
_IMAGES = "checkpoint"
_LARGEST_DOCUMENT = 16 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Checkpoint:
    """A checkpoint's content, unpacked in one of `directories`. RuntimeServiceError for what is none."""

    def __init__(self, name: str, directories: Sequence[Path]) -> None:
        self._name = name
        found = [directory for directory in directories if os.path.lexists(directory / CONFIG)]
        if not found:
            raise self._unusable(f"it has no {CONFIG}")
        self._directory = found[0]
        self._config = self._document(CONFIG, dict)
        self._check_images()

    def base(self, resolve: Callable[[str], Image | None]) -> Image:
        """The image that the container was made of, by its id, else by its name."""
        names = [self._config.get(key) for key in ("rootfsImageRef", "rootfsImageName")]
        for name in names:
            try:
                if isinstance(name, str) and name and (found := resolve(name)) is not None and not found.checkpoint:
                    return found
            except reference.InvalidReference:
                continue
        wanted = names[1] or names[0] or "?"
        raise self._unusable(f"image {wanted}, which the container was made of, is not on this node: load it first")

    def unpack(self, snapshot: Snapshot) -> None:
        """Gives a container's fresh writable layer what the checkpoint's had."""
        removed = self._document("deleted.files", list) if self._has("deleted.files") else []
        if not self._has("rootfs-diff.tar"):
            return
        try:
            with self._open("rootfs-diff.tar") as stream:
                layers.unpack_layer(stream, snapshot.upper, lowers=snapshot.lowers, removed=map(str, removed))
        except layers.LayerError as error:
            raise self._unusable(f"rootfs-diff.tar: {error}") from error

    def request(
        self, pod: PodSandboxConfig, config: ContainerConfig, spec: Mapping[str, Any], shm: str
    ) -> dict[str, Any]:
        """Returns what a container's request has more: CRIU, its images, the names of streams.

        `spec` is the new container's, `shm` the directory of the pod's shared memory.
        """
        if config.tty:
            raise self._unusable("it would have a terminal (tty: true), which the checkpoint's container had not")
        if pod.user_namespace:
            raise self._unusable("it cannot be restored in a pod with a user namespace")
        if config.pid_target or pod.namespaces.pid is not NamespaceMode.CONTAINER:
            raise self._unusable("its processes need a process namespace of their own, where no number is taken")
        self._check_volumes(set(external_places(spec, shm)))
        streams = self._streams()
        if streams[0] and not config.stdin:
            raise self._unusable("its container had a stdin: give the new one one too (stdin: true)")
        return {
            "criu": find_criu(CREATE_ERROR, f"Failed to restore container {config.name}"),
            "images": str(self._directory / _IMAGES),
            "streams": streams,
            "made_of": {
                "ref": self._config.get("rootfsImageRef", ""),
                "name": self._config.get("rootfsImageName", ""),
                "since": rfc3339(time.time_ns()),
            },
        }

    def _check_volumes(self, have: set[str]) -> None:
        """The processes go on with the mounts they had, so the pod has to have volumes where they were, and nowhere else."""
        had = {
            each["destination"]
            for each in self._document("spec.dump", dict)["mounts"]
            if each["type"] in ("bind", "overlay")
        }
        had -= {"/dev/shm"} - have  # other engines have the pod's shared memory there
        if had != have:
            missing = [f"has to mount a volume at {place}" for place in sorted(had - have)]
            missing += [f"must mount none at {place}" for place in sorted(have - had)]
            raise self._unusable(f"the pod {' and '.join(missing)}, as the checkpoint's container")

    def _streams(self) -> list[str]:
        known = self._document(f"{_IMAGES}/{DESCRIPTORS}", list) if self._has(f"{_IMAGES}/{DESCRIPTORS}") else []
        keys = [each if isinstance(each, str) and each.startswith(("file[", "pipe:[")) else "" for each in known]
        return [*keys, "", "", ""][:3]

    def _check_images(self) -> None:
        """CRIU would follow links out of the archive."""
        place = self._directory / _IMAGES
        if not os.path.lexists(place) or not stat.S_ISDIR(os.lstat(place).st_mode):
            raise self._unusable(f"it has no directory {_IMAGES}")
        for entry in os.scandir(place):
            if not entry.is_file(follow_symlinks=False):
                raise self._unusable(f"{_IMAGES}/{entry.name} is no regular file")

    def _has(self, name: str) -> bool:
        return os.path.lexists(self._directory / name)

    def _open(self, name: str) -> Any:
        file = open(os.open(self._directory / name, _FILE), "rb")  # noqa: SIM115  # the caller's
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise self._unusable(f"{name} is no regular file")
        return file

    def _document(self, name: str, kind: type) -> Any:
        try:
            with self._open(name) as file:
                document = json.loads(file.read(_LARGEST_DOCUMENT))
        except (OSError, ValueError, RecursionError) as error:
            raise self._unusable(f"{name} cannot be read: {error}") from error
        if not isinstance(document, kind):
            raise self._unusable(f"{name} is not what other engines write there")
        return document

    def _unusable(self, why: str) -> RuntimeServiceError:
        return RuntimeServiceError(CREATE_ERROR, f"checkpoint of container {self._name}: {why}")
