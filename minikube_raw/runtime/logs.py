"""Container output in CRI's log format: `2006-01-02T15:04:05.000000000Z stdout F line`, P instead of F for a piece of a line.

Keepers write it. Lines longer than 16 KiB are cut into pieces as containerd does, and what a container has written without
a new line is logged as a piece when its rest does not come soon. Standard library only.
"""

from __future__ import annotations

import os
import time

from minikube_raw.linux import files

MAX_LINE = 16 * 1024
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


def timestamp(now_ns: int) -> bytes:
    """Returns RFC 3339 with nine digits of a second, in UTC, as the kubelet parses it."""
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%09dZ" % (year, month, day, hour, minute, second, nanoseconds)


def format_chunk(stream: str, chunk: bytes, now_ns: int) -> bytes:
    """Returns the log lines for one piece of output; all get one time stamp, which is when it was read."""
    prefix = timestamp(now_ns) + b" " + stream.encode()
    full, partial = prefix + b" F ", prefix + b" P "
    lines = chunk.split(b"\n")
    tail = lines.pop()
    if lines and len(chunk) > MAX_LINE and max(map(len, lines)) > MAX_LINE:
        head = b"".join(_cut(line, full, partial) for line in lines)
    else:
        head = full + (b"\n" + full).join(lines) + b"\n" if lines else b""
    return head + _cut(tail, partial, partial) if tail else head


def _cut(line: bytes, last: bytes, partial: bytes) -> bytes:
    """Formats a line in pieces of at most MAX_LINE; the last one under the prefix `last`."""
    pieces = [line[start : start + MAX_LINE] for start in range(0, len(line), MAX_LINE)] or [b""]
    return b"".join(partial + piece + b"\n" for piece in pieces[:-1]) + last + pieces[-1] + b"\n"


class LogFile:
    """One container's log, appended to. A piece of output is in it as a whole, or can be taken back by its first byte's offset."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self.reopen()

    def reopen(self) -> None:
        """Opens the path again, after somebody has renamed the file: the kubelet's rotation."""
        try:
            opened = os.open(self.path, _APPEND, 0o640)
        except FileNotFoundError:
            files.make_directories(os.path.dirname(self.path))
            opened = os.open(self.path, _APPEND, 0o640)
        self.close()
        self._fd = opened

    @property
    def size(self) -> int:
        """Its size now, which is where the next piece begins."""
        return os.fstat(self._fd).st_size

    def write(self, stream: str, chunk: bytes) -> bool:
        """Appends a piece of output; False, and nothing of it is in the file, when the disk does not take it (yet)."""
        began = self.size
        left = memoryview(format_chunk(stream, chunk, time.time_ns()))
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:  # ENOSPC, EDQUOT, EIO: the container waits, as a full disk makes any writer wait
            self.cut(began)
            return False
        return True

    def cut(self, size: int) -> None:
        """Takes back what was appended after `size`; a file that is shorter (a new one) is left as it is."""
        if self.size > size:
            os.ftruncate(self._fd, size)

    def close(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
