"""How much of a disk a directory tree holds, as du counts it: blocks, each inode once, one file system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

_BLOCK = 512  # st_blocks, whatever the file system's own size is (stat(2))


class Use(NamedTuple):
    """Bytes and inodes."""

    bytes: int = 0
    inodes: int = 0

    def plus(self, other: Use) -> Use:
        """The sum."""
        return Use(self.bytes + other.bytes, self.inodes + other.inodes)


def device_name(number: str) -> str:
    """The block device "254:0" as /dev calls it ("/dev/vda"); its number where there is none by now."""
    try:
        with open(f"/sys/dev/block/{number}/uevent") as file:
            return next(f"/dev/{line.strip().removeprefix('DEVNAME=')}" for line in file if line.startswith("DEVNAME="))
    except (OSError, StopIteration):
        return number


def tree(path: str) -> Use:
    """Walk everything below `path` (and itself) without following links or entering other mounts; what vanishes is skipped."""
    try:
        top = os.lstat(path)
    except OSError:
        return Use()
    used, inodes, linked = top.st_blocks * _BLOCK, 1, set()
    for found in _below(path, top.st_dev):
        if found.st_nlink > 1:
            if found.st_ino in linked:
                continue
            linked.add(found.st_ino)
        used += found.st_blocks * _BLOCK
        inodes += 1
    return Use(used, inodes)


def _below(path: str, device: int) -> Iterator[os.stat_result]:
    waiting = [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev == device:
                        yield found
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
        except OSError:
            continue  # it was just deleted


class FileSystem(NamedTuple):
    """What a file system has and has left, for users without root's reserve; inodes are 0 where it has no such count."""

    capacity: int
    available: int
    used: int
    inodes: int
    inodes_free: int

    @property
    def inodes_used(self) -> int:
        """Inodes in use."""
        return self.inodes - self.inodes_free


def file_system(path: str) -> FileSystem:
    """The file system that holds `path`. OSError."""
    found = os.statvfs(path)
    size = found.f_frsize
    return FileSystem(
        capacity=found.f_blocks * size,
        available=found.f_bavail * size,
        used=(found.f_blocks - found.f_bfree) * size,
        inodes=found.f_files,
        inodes_free=found.f_favail,
    )
