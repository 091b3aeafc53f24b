"""Opening paths inside a tree that is not ours, by openat2(2), or by path_walk.py where a kernel or a filter lacks it.

A container's image decides what every name in its file system points at. These functions resolve a name so that no
link in it can lead outside the directory descriptor they start from, whoever renames things meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from ctypes import c_char_p, c_int, c_size_t, c_void_p

from . import features, steps
from .path_walk import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    open_by_walking,
)
from .syscalls import bind_syscall, checked

__all__ = [
    "RESOLVE_BENEATH",
    "RESOLVE_IN_ROOT",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_SYMLINKS",
    "RESOLVE_NO_XDEV",
    "make_directories_in_root",
    "open_beneath",
    "open_in_root",
    "open_in_volume",
    "openat2",
]


class open_how(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_openat2 = bind_syscall("openat2", c_int, c_char_p, c_void_p, c_size_t)


def openat2(dirfd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """openat2(2), repeated while a racing rename makes it EAGAIN; the descriptor is closed on exec.

    Raises OSError: EXDEV for a path that leaves the tree (RESOLVE_BENEATH), ELOOP for a forbidden link.
    """
    how = open_how(flags | os.O_CLOEXEC, mode, resolve)
    arguments = dirfd, os.fsencode(path), ctypes.addressof(how), ctypes.sizeof(how)
    for _ in range(128):
        try:
            return checked("openat2", path, _openat2, *arguments)
        except BlockingIOError:  # EAGAIN: a ".." could not be proven to stay inside while something was renamed
            continue
    raise OSError(errno.EAGAIN, "openat2: the tree keeps changing while it is resolved", path)


def open_in_root(rootfd: int, path: str, flags: int = os.O_PATH, mode: int = 0, *, resolve: int = 0) -> int:
    """Opens `path` as a process chrooted into `rootfd` would see it; magic links (/proc/N/fd) are refused.

    `resolve` adds further RESOLVE_ flags. Returns a descriptor closed on exec; raises OSError.
    """
    return _open(rootfd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve)


def open_beneath(dirfd: int, path: str, flags: int = os.O_PATH, mode: int = 0, *, resolve: int = 0) -> int:
    """Opens `path` below `dirfd`; absolute links and .. that leave it are EXDEV. For volume subPaths."""
    return _open(dirfd, path, flags, mode, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | resolve)


def open_in_volume(dirfd: int, volume: str, path: str, flags: int = os.O_PATH) -> int:
    """`open_beneath` that follows absolute links too whose text leads below `volume`, the path of `dirfd`; others are EXDEV.

    What is opened in the end is named without a link, so that who swaps one meanwhile gets an error and nothing outside.
    """
    try:
        return open_beneath(dirfd, path, flags)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    return open_beneath(dirfd, _without_links(dirfd, volume.rstrip("/"), path), flags, resolve=RESOLVE_NO_SYMLINKS)


def _without_links(dirfd: int, volume: str, path: str) -> str:
    """`path` with its links replaced by what they say. Raises OSError for what leads outside."""
    done, names, links = list[str](), path.split("/"), 40
    while names:
        name = names.pop(0)
        if name == ".." and not done:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        if name in ("", ".", ".."):
            del done[len(done) - (name == "..") :]
            continue
        target = _link(dirfd, "/".join([*done, name]))
        if target is None:
            done.append(name)
            continue
        links -= 1
        if target.startswith("/"):
            if target != volume and not target.startswith(f"{volume}/"):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
            done, target = [], target[len(volume) :]
        if not links:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        names[:0] = target.split("/")
    return "/".join(done) or "."


def _link(dirfd: int, path: str) -> str | None:
    """What the link at `path` says, None for anything else. Raises OSError, also for links on the way."""
    found = open_beneath(dirfd, path, os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_NO_SYMLINKS)
    try:
        return os.readlink("", dir_fd=found) if stat.S_ISLNK(os.fstat(found).st_mode) else None
    finally:
        os.close(found)


def _open(dirfd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    if features.openat2():
        return openat2(dirfd, path, flags, mode=mode, resolve=resolve)
    with steps.step("openat", path):
        return open_by_walking(dirfd, path, flags, mode, resolve)


def make_directories_in_root(rootfd: int, path: str, mode: int = 0o755, *, links: int = 40) -> int:
    """Makes `path` and its missing parents inside `rootfd`, following links as a chroot would; returns an O_PATH descriptor.

    What a dangling link points at is made too, inside (an image's /var/run -> /run without /run), through at most `links`
    of them. A component that exists and is not a directory raises NotADirectoryError.
    """
    done = ""
    for name in filter(None, path.split("/")):
        parent = open_in_root(rootfd, done or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            if name not in (".", "..") and not _make(parent, name, mode) and links:
                _make_target(rootfd, done, parent, name, mode, links - 1)
        finally:
            os.close(parent)
        done = f"{done}/{name}"
    return open_in_root(rootfd, done or "/", os.O_PATH | os.O_DIRECTORY)


def _make(parent: int, name: str, mode: int) -> bool:
    began = steps.begin()
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:  # a directory or a link to one, or else the next open says what is wrong with it
        return False
    finally:
        steps.end(began, "mkdir", (parent, name))
    return True


def _make_target(rootfd: int, above: str, parent: int, name: str, mode: int, links: int) -> None:
    """Makes what a dangling link `name` in the directory `above` points at; anything else is left as it is."""
    try:
        os.close(open_in_root(rootfd, f"{above}/{name}"))
    except FileNotFoundError:
        target = os.readlink(name, dir_fd=parent)
        os.close(
            make_directories_in_root(rootfd, target if target[:1] == "/" else f"{above}/{target}", mode, links=links)
        )
