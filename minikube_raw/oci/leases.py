"""Which containers use which image, so that removing an image never pulls the floor from under one.

A lease is a file named for the container, beside the images, that names the image and the container's snapshot
directory. It counts only while that directory exists: a deleted cluster leaves none behind, and none needs syncing,
since after a power cut no overlay of before is mounted again.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path


class Leases:
    """The directory of leases of one image store."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def take(self, container_id: str, image: str, snapshot: Path) -> None:
        """Record that a container uses the image with manifest digest `image`; further ones go under its id with ".0", ".1", …"""
        (self._directory / container_id).write_text(f"{image}\n{snapshot}\n")

    def release(self, container_id: str) -> None:
        """The container is gone, and with it what it used for its volumes; twice is fine.

        Without a look at other containers' leases; one that a crash leaves behind, with no directory, is found by _live().
        """
        with suppress(FileNotFoundError):
            (self._directory / container_id).unlink()
            for number in itertools.count():
                (self._directory / f"{container_id}.{number}").unlink()

    def images(self) -> set[str]:
        """Manifest digests in use."""
        return set(self._live().values())

    def users(self, image: str) -> list[str]:
        """Containers that use an image."""
        users = (lease.partition(".")[0] for lease, used in self._live().items() if used == image)
        return list(dict.fromkeys(users))

    def _live(self) -> dict[str, str]:
        live = {}
        for container_id in sorted(os.listdir(self._directory)):
            image, snapshot = (*(self._directory / container_id).read_text().split("\n"), "", "")[:2]
            if snapshot and os.path.isdir(snapshot):
                live[container_id] = image
            else:
                self.release(container_id)
        return live
