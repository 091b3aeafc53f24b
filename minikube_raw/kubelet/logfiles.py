"""The files of one container's log: the current one and those that rotation has put away, found, opened and counted through.

Rotated files are named as the kubelet names them, `0.log.20060102-150405`, and later compressed to `….gz`. Their order is their
names'. `logrotation` makes them, `podlogs` reads them.
"""

from __future__ import annotations

import glob
import gzip
import os
import re
from collections import deque
from collections.abc import Sequence
from typing import BinaryIO, cast

CHUNK = 1 << 18
COMPRESSED = ".gz"
PARTIAL = ".tmp"
_ROTATED = re.compile(r"\.(\d{8}-\d{6})(\.gz)?$")


def rotated(path: str) -> list[str]:
    """The rotated files of a log, oldest first; of one that is being compressed the whole one."""
    found: dict[str, str] = {}
    for each in glob.glob(f"{glob.escape(path)}.*"):
        match = _ROTATED.fullmatch(each[len(path) :])
        if match and not (match[2] and match[1] in found):
            found[match[1]] = each
    return [found[stamp] for stamp in sorted(found)]


def next_attempt(directory: str) -> int:
    """The first attempt of a container that has no log yet: also of runs that nobody else remembers after a power cut."""
    try:
        numbers = [name.partition(".")[0] for name in os.listdir(directory)]
    except FileNotFoundError:
        return 0
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


def open_log(path: str) -> BinaryIO | None:
    """Open a file of a log, whether it was compressed meanwhile or not; None when it is gone."""
    for name in (path, path + COMPRESSED) if not path.endswith(COMPRESSED) else (path,):
        try:
            if name.endswith(COMPRESSED):
                return cast(BinaryIO, gzip.open(name, "rb"))
            return open(name, "rb", buffering=0)
        except FileNotFoundError:
            continue
    return None


def is_compressed(file: BinaryIO) -> bool:
    """Whether reading an open file means decompressing, which is a thread's work."""
    return isinstance(cast(object, file), gzip.GzipFile)


class Reading:
    """What a reader has still to read of a log, in order. Told of rotations, so that it misses no file however slow it is."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._left = deque([*rotated(path), path])
        self._start = 0
        self._last = (0, 0)  # inode and position of the file that was left last

    def skip_to_tail(self, lines: int) -> None:
        """Begin where the last `lines` lines do; may block, for a thread. A rotation meanwhile makes it begin again."""
        while True:
            files = list(self._left)
            index, offset = _tail_start(files, lines)
            if list(self._left) == files:
                break
        for _ in range(index):
            self._left.popleft()
        self._start = offset

    def next(self) -> tuple[BinaryIO, int] | None:
        """Open the file to read next, with where to begin in it; None when it is not there (yet)."""
        while self._left:
            name = self._left[0]
            file = open_log(name)
            if file is None and name == self.path and len(self._left) == 1:
                return None
            self._left.popleft()
            start, self._start = self._start, 0
            if file is not None:
                inode, position = self._last
                # The same file again: a rotation that was taken back.
                return file, position if os.fstat(file.fileno()).st_ino == inode else start
        return None

    def leave(self, file: BinaryIO) -> None:
        """Close a file, and remember how far it was read."""
        self._last = (os.fstat(file.fileno()).st_ino, file.tell())
        file.close()

    @property
    def is_current(self) -> bool:
        """Whether the file given last is the one that is written to."""
        return not self._left

    @property
    def is_put_away(self) -> bool:
        """Whether nothing more will be written to the file given last: its successor is there."""
        return len(self._left) > 1 or (bool(self._left) and os.path.exists(self.path))

    def rotated_to(self, name: str) -> None:
        """The current file has been renamed, and there will be a new one."""
        if self._left:
            self._left[-1] = name
        self._left.append(self.path)


def _tail_start(files: Sequence[str], lines: int) -> tuple[int, int]:
    """In which file, and where, the last `lines` lines of a log begin."""
    for index in range(len(files) - 1, -1, -1):
        file = open_log(files[index])
        if file is None:
            continue
        with file:
            offset, lines = tail_offset(file, lines)
        if lines <= 0:
            return index, offset
    return 0, 0


def replaced(path: str, file: BinaryIO) -> bool:
    """Whether the log was rotated under its reader by somebody who told nobody: another file has its name."""
    try:
        return os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def tail_offset(file: BinaryIO, lines: int) -> tuple[int, int]:
    """Where the last `lines` lines of a file begin, and how many it lacks (0 or less when it has them all)."""
    if is_compressed(file):
        return _tail_offset_forward(file, lines)
    end = position = file.seek(0, os.SEEK_END)
    if lines == 0:
        return end, 0
    wanted = lines + 1  # the last line's own new line counts, too
    while position > 0:
        start = max(0, position - CHUNK)
        file.seek(start)
        block = file.read(position - start)
        count = block.count(b"\n")
        if count >= wanted:
            index = len(block)
            for _ in range(wanted):
                index = block.rindex(b"\n", 0, index)
            return start + index + 1, 0
        wanted -= count
        position = start
    return 0, wanted - 1


def _tail_offset_forward(file: BinaryIO, lines: int) -> tuple[int, int]:
    """The same for a compressed file, which can only be read from its beginning."""
    total = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(CHUNK), b""))
    skip = total - lines
    if skip <= 0:
        return 0, -skip
    file.seek(0)
    offset = 0
    while chunk := file.read(CHUNK):
        count = chunk.count(b"\n")
        if count >= skip:
            index = -1
            for _ in range(skip):
                index = chunk.index(b"\n", index + 1)
            return offset + index + 1, 0
        skip -= count
        offset += len(chunk)
    return offset, 0
