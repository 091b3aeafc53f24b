"""Giving a tree of files to a group, as fsGroup asks: by descriptor, so that no link or rename in it can lead outside.

The tree may be a volume that containers are writing to. What vanishes meanwhile is passed over; mounts below it that are
of another file system are not entered.
"""

from __future__ import annotations

import os
import stat

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ, _READ_WRITE, _ENTER = 0o440, 0o660, 0o110


def mode_for_group(mode: int, *, readonly: bool = False) -> int:
    """The mode a file or directory (an st_mode) gets with a group: readable, writable unless `readonly`, inherited."""
    mask = _READ if readonly else _READ_WRITE
    if stat.S_ISDIR(mode):
        mask |= stat.S_ISGID | _ENTER
    return stat.S_IMODE(mode) | mask


def belongs_to_group(path: str, group: int, *, readonly: bool = False) -> bool:
    """Whether the root of a tree already has group and mode: all that OnRootMismatch looks at."""
    found = os.stat(path)
    return found.st_gid == group and stat.S_IMODE(found.st_mode) == mode_for_group(found.st_mode, readonly=readonly)


def give_to_group(path: str, group: int, *, readonly: bool = False) -> None:
    """Changes group and mode of everything below `path`, links' owners too but never what they point at; the root last.

    The root comes last, so that a walk cut short is seen by `belongs_to_group` and done again. Raises OSError for the root.
    """
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        device = os.fstat(root).st_dev
        _give_children(root, group, device, readonly)
        os.chown(root, -1, group)
        _change_mode(root, readonly)
    finally:
        os.close(root)


def _give_children(top: int, group: int, device: int, readonly: bool) -> None:
    """Walks with a stack of paths, not of frames or descriptors: the tree may be deeper than either allows."""
    left: list[list[str]] = [[]]
    while left:
        path = left.pop()
        try:
            parent = _descend(top, path)
        except OSError:
            continue  # renamed or removed meanwhile
        try:
            for name in _names(parent):
                if _give_child(parent, name, group, device, readonly):
                    left.append([*path, name])
        finally:
            os.close(parent)


def _give_child(parent: int, name: str, group: int, device: int, readonly: bool) -> bool:
    """Changes one entry of a directory; says whether it is a directory to be walked too."""
    try:
        found = os.open(name, _LOOK, dir_fd=parent)
    except OSError:
        return False
    try:
        status = os.fstat(found)
        if status.st_dev != device:
            return False
        if status.st_gid != group:
            os.chown(name, -1, group, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            _change_mode(found, readonly)
        return stat.S_ISDIR(status.st_mode)
    except OSError:
        return False  # gone, or what the file system refuses for this one file
    finally:
        os.close(found)


def _descend(top: int, names: list[str]) -> int:
    current = os.dup(top)
    for name in names:
        try:
            below = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=current)
        finally:
            os.close(current)
        current = below
    return current


def _names(directory: int) -> list[str]:
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.listdir(opened)
    finally:
        os.close(opened)


def _change_mode(found: int, readonly: bool) -> None:
    """Changes the mode of what the descriptor is; one opened with O_PATH is reached through /proc only."""
    mode = os.fstat(found).st_mode
    wanted = mode_for_group(mode, readonly=readonly)
    if wanted != stat.S_IMODE(mode):
        os.chmod(f"/proc/self/fd/{found}", wanted)
