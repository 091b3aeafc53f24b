"""File descriptors: which ones a process keeps, and a program sealed in memory.

A fork without exec inherits every descriptor, and a copy of a listening socket, a FIFO or a pty master keeps it alive
after its owner died; so close_all_but() is the first thing that a forked process of ours does.
"""

from __future__ import annotations

import errno
import fcntl
import os
from ctypes import c_uint
from time import sleep

from . import features, steps
from .syscalls import bind_syscall, checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4
_HIGHEST = 0x7FFFFFFF
_SEAL_ATTEMPTS = 500
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_close_range_flags = bind_syscall("close_range", c_uint, c_uint, c_uint)


def close_all_but(keep: Iterable[int]) -> None:
    """Closes every descriptor of this process that is not in `keep`."""
    first = 0
    for fd in sorted(keep):
        if fd > first:
            _close_range(first, fd - 1)
        first = max(first, fd + 1)
    _close_range(first, _HIGHEST)


def _close_range(first: int, last: int) -> None:
    """close_range(2) as the standard library calls it: a fork that uses no ctypes goes on sharing more pages."""
    began = steps.begin()
    if features.close_range():
        os.closerange(first, min(last + 1, _HIGHEST))
    else:
        _close_listed(first, last)
    steps.end(began, "close_range", f"{first}-{last}")


def close_on_exec_all_but(keep: Iterable[int]) -> None:
    """Marks every descriptor that is not in `keep` to be closed by exec (Linux ≥ 5.11, else OSError EINVAL)."""
    for first, last in _gaps(sorted({fd for fd in keep if fd >= 0})):
        checked("close_range", f"{first}-{last} cloexec", _close_range_flags, first, last, CLOSE_RANGE_CLOEXEC)


def _gaps(kept: list[int]) -> list[tuple[int, int]]:
    """Returns the ranges (first, last) of descriptors between those kept."""
    starts = [0, *(fd + 1 for fd in kept)]
    ends = [*(fd - 1 for fd in kept), _HIGHEST]
    return [(first, last) for first, last in zip(starts, ends, strict=True) if first <= last]


def _close_listed(first: int, last: int) -> None:
    for fd in open_descriptors():
        if first <= fd <= last:
            try:
                os.close(fd)
            except OSError:
                pass  # the descriptor that listed the others


def open_descriptors() -> list[int]:
    """Returns this process's descriptors in order."""
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))


def inheritable(fd: int, target: int) -> None:
    """Puts `fd` at the number `target`, open across exec (dup3(2) does nothing when both are one)."""
    if fd == target:
        os.set_inheritable(fd, True)
    else:
        os.dup2(fd, target, inheritable=True)


def sealed_copy(path: str, name: str) -> int:
    """Copies a file into a memfd that nobody can change any more; returns its descriptor, closed on exec.

    A program run from it (/proc/self/fd/N) cannot be overwritten by what it later runs (CVE-2019-5736).
    """
    memory = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(path, "rb") as source:
            left = os.fstat(source.fileno()).st_size
            while left > 0 and (copied := os.sendfile(memory, source.fileno(), None, left)):
                left -= copied
        os.fchmod(memory, 0o755)
        _seal(memory)
    except OSError:
        os.close(memory)
        raise
    return memory


def _seal(memory: int) -> None:
    """Adds the seals. EBUSY means that the kernel still holds a page it has just written, for a moment; no event says when."""
    for _ in range(_SEAL_ATTEMPTS):
        try:
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            sleep(0.002)
        else:
            return
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)


def is_sealed(fd: int) -> bool:
    """Says whether the file behind `fd` is a memfd under all seals of sealed_copy()."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        return False


def set_pipe_size(fd: int, size: int) -> int:
    """Asks for a pipe buffer of `size` bytes; returns what the pipe has, since a user's limit may refuse (pipe(7))."""
    try:
        return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
    except PermissionError:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
