"""A container's own directories over its image's shared layers: what an overlay mount of it is made of.

One directory per container: `upper` and `work` for overlayfs, `root` as a place to mount at. Nothing is mounted here;
the runtime does that, in a mount namespace of its own choosing. The writable layer lives and dies with the container.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from minikube_raw.linux import removal

from .images import Image, ImageError, ImageStore

_TRASH = ".removed"


class Snapshot(NamedTuple):
    """Arguments of an overlay mount; `lowers` are uppermost first and never empty."""

    lowers: list[Path]
    upper: Path
    work: Path
    target: Path


class Snapshots:
    """All containers' snapshots of one node. `root` lies on a file system that can carry an upper directory."""

    def __init__(self, store: ImageStore, root: Path) -> None:
        self._store = store
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def prepare(self, container_id: str, image: Image) -> Snapshot:
        """Make a container's directories, empty, and hold the image for it. Unpacks missing layers (slow, once).

        A second call gives the same empty state: nothing of an earlier attempt shows through. Raises ImageError.
        """
        directory = self._root / container_id
        with self._store.writing():
            self.remove(container_id)
            directory.mkdir(mode=0o700)
            self._store.leases.take(container_id, image.digest, directory)
            try:
                lowers = self._store.layers(image)
                return _directories(directory, lowers)
            except (ImageError, OSError):
                self.remove(container_id)
                raise

    def hold(self, container_id: str, images: Sequence[Image]) -> list[list[Path]]:
        """Hold further images, those of its volumes, for a container that has its directories; their layers, uppermost first.

        Raises ImageError.
        """
        with self._store.writing():
            for number, image in enumerate(images):
                self._store.leases.take(f"{container_id}.{number}", image.digest, self._root / container_id)
            return [self._store.layers(image) for image in images]

    def remove(self, container_id: str) -> None:
        """Give the container's directories up, once its overlay is unmounted: one rename, any size. Twice is fine."""
        removal.put_aside(str(self._root / container_id), self.trash)
        self._store.leases.release(container_id)

    @property
    def trash(self) -> str:
        """Where `remove` puts aside, for somebody to empty in the background (linux.removal)."""
        return str(self._root / _TRASH)

    def list(self) -> list[str]:
        """Containers that have a snapshot, for the sweep to compare with those that should."""
        return sorted(set(os.listdir(self._root)) - {_TRASH})


def _directories(directory: Path, lowers: list[Path]) -> Snapshot:
    snapshot = Snapshot(lowers, directory / "upper", directory / "work", directory / "root")
    for path in snapshot[1:]:
        path.mkdir()
    image_root = lowers[0].stat()  # the merged root shows the upper directory's owner and mode
    os.chown(snapshot.upper, image_root.st_uid, image_root.st_gid)
    os.chmod(snapshot.upper, stat.S_IMODE(image_root.st_mode))
    return snapshot
