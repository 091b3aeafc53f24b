"""A disk for a bench that makes and removes thousands of files: an ext4 with a journal, as hosts have.

Without one, ext4 gives no inode anew that was deleted in the last minutes, and passes over such inodes one by one for each file
that is made: after two thousand removals, anybody's, a file takes 0.4 ms, and a pod's start is measured by them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minikube_raw.linux import mounts

SIZE = 4 << 30  # sparse


@contextmanager
def journaled(folder: Path) -> Iterator[Path]:
    """A directory on such a disk, in a file in `folder`; `folder` itself where no such disk can be made."""
    image, place = folder / "disk.img", folder / "disk"
    place.mkdir()
    if shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        yield place
        return
    image.touch()
    os.truncate(image, SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        mounts.umount_all(str(place))
