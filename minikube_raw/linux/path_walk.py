"""What openat2(2) does, by descriptors: for kernels before 5.6 and for system call filters that answer ENOSYS.

Every component is opened without following, links are read from their own descriptor and followed by hand, and ".." is
a step back on the stack of directories that were opened on the way; no rename can therefore lead outside. Only mounts
are told apart less well: RESOLVE_NO_XDEV sees file systems, not bind mounts of one.
"""

from __future__ import annotations

import errno
import os
import stat

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_MOST_LINKS = 40  # as the kernel's MAXSYMLINKS
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def open_by_walking(rootfd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """Opens `path` below `rootfd` under openat2's RESOLVE_ flags; raises OSError as openat2 would."""
    walk = _Walk(rootfd, path, resolve)
    try:
        return walk.open(flags | os.O_CLOEXEC, mode)
    finally:
        walk.close()


class _Walk:
    """Where a resolution stands: directories opened on the way, the root first, and names still to go."""

    def __init__(self, rootfd: int, path: str, resolve: int) -> None:
        self._path = path
        self._resolve = resolve
        self._links = 0
        self._names = _split(path)
        self._stack = [os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=rootfd)]
        self._device = os.fstat(self._stack[0]).st_dev
        self._leads_outside = path.startswith("/")

    def close(self) -> None:
        """Closes what was opened on the way."""
        while self._stack:
            os.close(self._stack.pop())

    def open(self, flags: int, mode: int) -> int:
        """Goes all the way and opens the last component with the caller's flags."""
        if self._leads_outside:
            self._to_root()
        while self._names:
            name = self._names.pop(0)
            if name == "..":
                self._step_back()
            elif self._names or not flags & os.O_NOFOLLOW:
                if not self._step(name, last=not self._names):
                    return self._open_last(name, flags, mode)
            else:
                return self._open_last(name, flags, mode)
        return self._open_last(".", flags & ~(os.O_CREAT | os.O_EXCL), mode)

    def _to_root(self) -> None:
        if self._resolve & RESOLVE_BENEATH:
            raise self._error(errno.EXDEV)
        while len(self._stack) > 1:
            os.close(self._stack.pop())

    def _step_back(self) -> None:
        if len(self._stack) > 1:
            os.close(self._stack.pop())
        elif self._resolve & RESOLVE_BENEATH:
            raise self._error(errno.EXDEV)

    def _step(self, name: str, *, last: bool) -> bool:
        """Enters a directory or follows a link; False when `name` is the last one and to be opened as it is."""
        try:
            found = os.open(name, _LOOK, dir_fd=self._stack[-1])
        except FileNotFoundError:
            if last:
                return False  # O_CREAT makes it, or the open says that it is not there
            raise self._error(errno.ENOENT) from None
        self._stack.append(found)
        status = os.fstat(found)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink("", dir_fd=found)
            os.close(self._stack.pop())
            self._follow(target)
            return True
        if last:
            os.close(self._stack.pop())
            return False
        if not stat.S_ISDIR(status.st_mode):
            raise self._error(errno.ENOTDIR)
        self._check_device(status)
        return True

    def _follow(self, target: str) -> None:
        self._links += 1
        if self._resolve & RESOLVE_NO_SYMLINKS or self._links > _MOST_LINKS:
            raise self._error(errno.ELOOP)
        if target.startswith("/"):
            self._to_root()
        self._names[:0] = _split(target)

    def _open_last(self, name: str, flags: int, mode: int) -> int:
        # Without following: what was looked at and is a link by now must not be followed after all (ELOOP).
        opened = os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=self._stack[-1])
        try:
            status = os.fstat(opened)
            if stat.S_ISLNK(status.st_mode) and not flags & os.O_NOFOLLOW:
                raise self._error(errno.ELOOP)
            self._check_device(status)
        except OSError:
            os.close(opened)
            raise
        return opened

    def _check_device(self, status: os.stat_result) -> None:
        if self._resolve & RESOLVE_NO_XDEV and status.st_dev != self._device:
            raise self._error(errno.EXDEV)

    def _error(self, code: int) -> OSError:
        return OSError(code, f"openat2 by walking: {os.strerror(code)}", self._path)


def _split(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]
