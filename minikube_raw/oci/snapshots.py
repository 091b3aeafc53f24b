"""A container's own directories over its image's shared layers: what an overlay mount of it is made of.

One directory per container: `upper` and `work` for overlayfs, `root` as a place to mount at. Nothing is mounted here;
the runtime does that, in a mount namespace of its own choosing. The writable layer lives and dies with the container.
A spare is a snapshot that no container has yet; it holds no image, so an image can be removed under it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from minikube_raw.linux import removal

from .images import Image, ImageError, ImageStore

_TRASH = ".removed"
_SPARE = ".spare-"


class Snapshot(NamedTuple):
    """Arguments of an overlay mount; `lowers` are uppermost first and never empty."""

    lowers: list[Path]
    upper: Path
    work: Path
    target: Path


class Spare(NamedTuple):
    """Directories that wait for a container of an image; `layers` tells its lower directories from others of the same names."""

    snapshot: Snapshot
    layers: list[tuple[int, int, int]]


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

    def prepare_spare(self, image: Image) -> Spare | None:
        """Make the directories of a container that may come. Raises ImageError, OSError.

        None for an image that lies outside the store: what is mounted of it would keep somebody else's file system busy.
        """
        directory = self._root / f"{_SPARE}{os.urandom(8).hex()}"
        with self._store.writing():
            lowers = self._store.layers(image)
            if not all(lower.is_relative_to(self._store.root) for lower in lowers):
                return None
            directory.mkdir(mode=0o700)
            try:
                return Spare(_directories(directory, lowers), _identities(lowers))
            except OSError:
                shutil.rmtree(directory, ignore_errors=True)
                raise

    def adopt(self, container_id: str, image: Image, spare: Spare) -> Snapshot | None:
        """Make a spare a container's, as `prepare` makes new directories; None if the image has got other ones since.

        What is mounted of a spare stays mounted. Raises ImageError.
        """
        directory = self._root / container_id
        with self._store.writing():
            self.remove(container_id)
            lowers = self._store.layers(image)
            if lowers != spare.snapshot.lowers or _identities(lowers) != spare.layers:
                return None
            self._store.leases.take(container_id, image.digest, directory)
            os.rename(spare.snapshot.upper.parent, directory)
        return Snapshot(lowers, *(directory / path.name for path in spare.snapshot[1:]))

    def discard(self, spare: Spare) -> None:
        """Delete a spare that nothing is mounted of any more. Twice is fine."""
        shutil.rmtree(spare.snapshot.upper.parent, ignore_errors=True)

    def discard_all(self) -> None:
        """Delete the spares that somebody has left who was killed."""
        for name in os.listdir(self._root):
            if name.startswith(_SPARE):
                shutil.rmtree(self._root / name, ignore_errors=True)

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
        return sorted(name for name in os.listdir(self._root) if name != _TRASH and not name.startswith(_SPARE))


def _identities(directories: Sequence[Path]) -> list[tuple[int, int, int]]:
    found = map(os.stat, directories)
    return [(each.st_dev, each.st_ino, each.st_ctime_ns) for each in found]


def _directories(directory: Path, lowers: list[Path]) -> Snapshot:
    snapshot = Snapshot(lowers, directory / "upper", directory / "work", directory / "root")
    for path in snapshot[1:]:
        path.mkdir()
    image_root = lowers[0].stat()  # the merged root shows the upper directory's owner and mode
    os.chown(snapshot.upper, image_root.st_uid, image_root.st_gid)
    os.chmod(snapshot.upper, stat.S_IMODE(image_root.st_mode))
    return snapshot
