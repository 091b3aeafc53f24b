"""The kernel's mount calls, old (mount(2)) and new (fsopen(2) and its family), one thin function each.

Constants keep their names from linux/mount.h. What is built from these calls is in mounts.py and overlay.py.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_ulong, c_void_p

from .syscalls import bind, bind_syscall, checked

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21

MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MOUNT_ATTR_IDMAP = 0x100000


class mount_attr(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_mount = bind("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = bind("umount2", c_char_p, c_int)
_pivot_root = bind_syscall("pivot_root", c_char_p, c_char_p)
_fsopen = bind_syscall("fsopen", c_char_p, c_uint)
_fsconfig = bind_syscall("fsconfig", c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = bind_syscall("fsmount", c_int, c_uint, c_uint)
_move_mount = bind_syscall("move_mount", c_int, c_char_p, c_int, c_char_p, c_uint)
_open_tree = bind_syscall("open_tree", c_int, c_char_p, c_uint)
_mount_setattr = bind_syscall("mount_setattr", c_int, c_char_p, c_uint, c_void_p, c_size_t)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2); an empty fstype or data is passed as NULL."""
    arguments = os.fsencode(source), os.fsencode(target), fstype.encode() or None, flags, os.fsencode(data) or None
    checked("mount", target, _mount, *arguments, step=(source, target, fstype, flags, data))


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    checked("umount2", target, _umount2, os.fsencode(target), flags, step=(target, flags))


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    checked("pivot_root", new_root, _pivot_root, os.fsencode(new_root), os.fsencode(put_old), step=(new_root, put_old))


def fsopen(fstype: str) -> int:
    """fsopen(2): a file system context, closed on exec."""
    return checked("fsopen", fstype, _fsopen, fstype.encode(), FSOPEN_CLOEXEC, step=(fstype, FSOPEN_CLOEXEC))


def fsconfig_string(context: int, key: str, value: str) -> None:
    """fsconfig(2) FSCONFIG_SET_STRING; a value of more than 255 bytes is EINVAL in the kernel."""
    arguments = context, FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0
    checked("fsconfig", f"{key}={value}", _fsconfig, *arguments, step=(context, FSCONFIG_SET_STRING, key, value))


def fsconfig_flag(context: int, key: str) -> None:
    """fsconfig(2) FSCONFIG_SET_FLAG."""
    arguments = context, FSCONFIG_SET_FLAG, key.encode(), None, 0
    checked("fsconfig", key, _fsconfig, *arguments, step=(context, FSCONFIG_SET_FLAG, key))


def fsconfig_create(context: int) -> None:
    """fsconfig(2) FSCONFIG_CMD_CREATE: makes the superblock."""
    arguments = context, FSCONFIG_CMD_CREATE, None, None, 0
    checked("fsconfig", "create", _fsconfig, *arguments, step=(context, FSCONFIG_CMD_CREATE))


def fsmount(context: int, attributes: int = 0) -> int:
    """fsmount(2): a detached mount of the context's superblock, as a descriptor closed on exec."""
    arguments = context, FSMOUNT_CLOEXEC, attributes
    return checked("fsmount", "", _fsmount, *arguments, step=arguments)


def move_mount(mount_fd: int, target: str, target_dirfd: int = AT_FDCWD) -> None:
    """move_mount(2): attaches a detached mount at a path; an empty path means the directory descriptor itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    arguments = mount_fd, b"", target_dirfd, os.fsencode(target), flags
    checked("move_mount", target, _move_mount, *arguments, step=(mount_fd, "", target_dirfd, target, flags))


def open_tree(path: str, *, clone: bool = True, recursive: bool = True, dirfd: int = AT_FDCWD) -> int:
    """open_tree(2): with `clone` a detached copy of the mount (and those below), else the mount itself."""
    flags = OPEN_TREE_CLOEXEC | (0 if path else AT_EMPTY_PATH)
    if clone:
        flags |= OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0)
    return checked("open_tree", path, _open_tree, dirfd, os.fsencode(path), flags, step=(dirfd, path, flags))


def mount_setattr(
    path: str,
    *,
    set: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    recursive: bool = False,
    dirfd: int = AT_FDCWD,
) -> None:
    """mount_setattr(2); an empty path means the mount that `dirfd` is."""
    attributes = mount_attr(set, clear, propagation, userns_fd)
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    arguments = dirfd, os.fsencode(path), flags, ctypes.addressof(attributes), ctypes.sizeof(attributes)
    step = (dirfd, path, flags, set, clear, propagation, userns_fd)
    checked("mount_setattr", path, _mount_setattr, *arguments, step=step)
