"""Removing trees that others have filled: by descriptor, through no link and over no mount, however deep or large they are.

`put_aside` takes a tree out of sight with one rename; `empty_trash` deletes what was put aside, also before a crash. A few
files go at once; for more `start_emptying` leaves the rest to a process of idle priority (a thread of such a priority would
hold the interpreter's lock while it waits for its turn). What cannot be removed stays and is tried again the next time.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import subprocess
import sys
from pathlib import Path

from . import paths
from .syscalls import bind_syscall

_PREFIX = "removed-"
_DEEPEST = 64  # directories below this are moved up to the top, so that neither frames nor descriptors run out
_BATCH = 1000  # names of a directory that are held in memory at a time
_FEW = 2000
_IDLE_CLASS = 3 << 13  # IOPRIO_CLASS_IDLE of ioprio_set(2)
_WHO_PROCESS = 1
_LOWEST = 19
_STAYS = frozenset((errno.EBUSY, errno.EXDEV, errno.ELOOP, errno.EPERM, errno.EACCES, errno.ENOTEMPTY, errno.EROFS))
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_MAIN = "from minikube_raw.linux.removal import main; main(sys.argv[1])"


def put_aside(path: str, trash: str) -> bool:
    """Moves a tree into the directory `trash` of the same file system; False when there is none.

    What else lies in the place of the trash goes: nobody here puts it there, and no removal would get past it.
    """
    while os.path.lexists(path):
        try:
            os.makedirs(trash, mode=0o700, exist_ok=True)
            os.rename(path, f"{trash}/{_PREFIX}{os.urandom(8).hex()}")
        except FileNotFoundError:
            continue  # somebody who emptied the trash has just removed it
        except FileExistsError:  # likewise, or there is no directory there
            _unlink_file(trash)
            continue
        return True
    return False


def _unlink_file(path: str) -> None:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(path)


def empty_trash(trash: str, *, most: int | None = None) -> bool:
    """Deletes what was put aside, at most about `most` files; False when some is left."""
    try:
        top = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        _unlink_file(trash)
        return True
    try:
        gone = _Removal(top, most).run()
    finally:
        os.close(top)
    if gone:
        with contextlib.suppress(OSError):  # something was put aside meanwhile
            os.rmdir(trash)
    return gone


def start_emptying(trash: str) -> subprocess.Popen[bytes] | None:
    """Deletes a few files at once; returns the process that goes on when there are more. The caller waits for it."""
    if empty_trash(trash, most=_FEW):
        return None
    code = f"import sys; sys.path.insert(0, {_PACKAGE_PARENT!r}); {_MAIN}"
    argv = [os.path.realpath(sys.executable), "-I", "-S", "-c", code, trash]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL)


def main(trash: str) -> None:
    """The process of idle priority."""
    os.setpriority(os.PRIO_PROCESS, 0, _LOWEST)
    bind_syscall("ioprio_set")(_WHO_PROCESS, 0, _IDLE_CLASS)
    empty_trash(trash)


class _Removal:
    """One pass over the trash, `top`, until all is gone, nothing more can be removed, or enough was."""

    def __init__(self, top: int, most: int | None) -> None:
        self._top = top
        self._most = most
        self._removed = 0
        self._moved = True

    def run(self) -> bool:
        """True when the trash is empty."""
        while self._moved and not self._enough:
            self._moved = False  # what was too deep is at the top by now and wants another round
            if self._empty(self._top, 0):
                return not self._moved or self.run()
        return False

    @property
    def _enough(self) -> bool:
        return self._most is not None and self._removed >= self._most

    def _empty(self, directory: int, depth: int) -> bool:
        """Removes what a directory holds, batch by batch; False when something stays."""
        while not self._enough:
            with os.scandir(directory) as entries:
                names = [entry.name for entry in itertools.islice(entries, _BATCH)]
            removed = [self._remove(directory, name, depth) for name in names if not self._enough]
            if len(removed) < len(names) or not any(removed):
                return not names
        return False

    def _remove(self, parent: int, name: str, depth: int) -> bool:
        try:
            if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                return self._remove_directory(parent, name, depth)
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in _STAYS:
                return False
            raise
        self._removed += 1
        return True

    def _remove_directory(self, parent: int, name: str, depth: int) -> bool:
        if depth == _DEEPEST:
            place = f"{_PREFIX}{os.urandom(8).hex()}"
            os.rename(name, place, src_dir_fd=parent, dst_dir_fd=self._top)
            self._moved = True
            return True
        beneath = paths.RESOLVE_NO_SYMLINKS | paths.RESOLVE_NO_XDEV
        directory = paths.open_beneath(parent, name, os.O_RDONLY | os.O_DIRECTORY, resolve=beneath)
        try:
            if not self._empty(directory, depth + 1):
                return False
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=parent)
        self._removed += 1
        return True
