"""Root file systems that are made ahead of time: the overlay of a container that may come, for each image used lately.

On ext4 an overlay and its directories cost a container's start two milliseconds, most of it for eight new directories. So a
container that has started has the next one's made, as a detached mount that waits here. Whoever dies lets go of them;
what is left on the disk then is deleted at the next start.
"""

from __future__ import annotations

import os
import threading
from typing import NamedTuple, Protocol

from minikube_raw.linux import features, mounts, steps
from minikube_raw.oci.images import Image, ImageError
from minikube_raw.oci.snapshots import Snapshot, Spare

KEPT = 4  # images, those used last: the containers of a pod or two


class Spares(Protocol):
    """What is needed of oci.snapshots.Snapshots here."""

    def prepare_spare(self, image: Image) -> Spare | None:
        """Makes the directories of a container that may come, if they can be made ahead."""
        ...

    def adopt(self, container_id: str, image: Image, spare: Spare) -> Snapshot | None:
        """Makes them a container's."""
        ...

    def discard(self, spare: Spare) -> None:
        """Deletes them."""
        ...


class Root(NamedTuple):
    """A root file system that nobody has yet: its directories, the overlay of them (a descriptor), the steps of its making."""

    spare: Spare
    mount: int
    made: list[steps.Step]


class Roots:
    """At most one for each of the images used last. Called in threads."""

    def __init__(self, snapshots: Spares, mount_points: str) -> None:
        """`mount_points` is the layer that every container has below those of its image."""
        self._snapshots, self._mount_points = snapshots, mount_points
        self._lock = threading.Lock()
        self._ready: dict[str, Root] = {}  # by the image's id, the one used last at the end
        self._closed = False

    def make(self, image: Image) -> None:
        """Makes one, unless there is one. What fails here fails again, and is told, when there is a container."""
        with self._lock:
            if self._closed or image.id in self._ready or not features.overlay_lowerdir_plus():
                return
            try:
                spare = self._snapshots.prepare_spare(image)
                if spare is None:
                    return
                self._ready[image.id] = self._mount(spare)
            except (ImageError, OSError):
                return
            if len(self._ready) > KEPT:
                self._discard(self._ready.pop(next(iter(self._ready))))

    def _mount(self, spare: Spare) -> Root:
        lowers = [*map(str, spare.snapshot.lowers), self._mount_points]
        steps.start_recording()
        try:
            mount = mounts.open_overlay(lowers, str(spare.snapshot.upper), str(spare.snapshot.work))
        except OSError:
            self._snapshots.discard(spare)
            raise
        finally:
            made = steps.stop_recording()
        return Root(spare, mount, made)

    def take(self, container_id: str, image: Image) -> tuple[Snapshot, int] | None:
        """Gives a container the one that waits: its directories, and the mount, the caller's from now on. Raises ImageError."""
        with self._lock:
            root = self._ready.pop(image.id, None)
        if root is None:
            return None
        try:
            snapshot = self._snapshots.adopt(container_id, image, root.spare)
        except BaseException:
            self._discard(root)
            raise
        if snapshot is None:
            self._discard(root)
            return None
        steps.add(root.made)
        return snapshot, root.mount

    def close(self) -> None:
        """Gives them all up."""
        with self._lock:
            self._closed = True
            for root in self._ready.values():
                self._discard(root)
            self._ready.clear()

    def _discard(self, root: Root) -> None:
        os.close(root.mount)
        self._snapshots.discard(root.spare)
