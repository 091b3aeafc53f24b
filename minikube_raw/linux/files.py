"""Directories, device nodes and links of a container's file system: the standard library's calls, recorded as steps.

Modes given here are the modes that result: the caller's umask does not count.
"""

from __future__ import annotations

import os
import stat

from . import steps


def make_directory(path: str, mode: int = 0o755, *, dir_fd: int | None = None) -> bool:
    """mkdir(2) with exactly `mode`; False if something of that name exists (its mode is left as it is)."""
    began = steps.begin()
    try:
        os.mkdir(path, mode, dir_fd=dir_fd)
    except FileExistsError:
        return False
    finally:
        steps.end(began, "mkdir", path if dir_fd is None else (dir_fd, path))
    if mode & ~0o755:  # bits that a usual umask takes away
        os.chmod(path, mode, dir_fd=dir_fd)
    return True


def make_directories(path: str, mode: int = 0o755) -> None:
    """Makes a directory and its missing parents with exactly `mode`; those that exist are left as they are."""
    try:
        make_directory(path, mode)
    except FileNotFoundError:
        make_directories(os.path.dirname(path), mode)
        make_directory(path, mode)


def make_character_device(path: str, major: int, minor: int, mode: int = 0o666, *, dir_fd: int | None = None) -> None:
    """mknod(2) of a character device with exactly `mode`; FileExistsError if the name is taken."""
    began = steps.begin()
    os.mknod(path, stat.S_IFCHR | mode, os.makedev(major, minor), dir_fd=dir_fd)
    steps.end(began, "mknod", f"{path} c {major}:{minor}")
    os.chmod(path, mode, dir_fd=dir_fd)


def make_symlink(path: str, target: str, *, dir_fd: int | None = None) -> None:
    """symlink(2): `path` points at `target`; FileExistsError if the name is taken."""
    began = steps.begin()
    os.symlink(target, path, dir_fd=dir_fd)
    steps.end(began, "symlink", f"{path} -> {target}")


def make_empty_file(path: str, mode: int = 0o644, *, dir_fd: int | None = None) -> None:
    """Makes a file to mount on; an existing one is left as it is, and a FIFO that somebody made meanwhile is not waited for."""
    began = steps.begin()
    flags = os.O_CREAT | os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(path, flags, mode, dir_fd=dir_fd))
    steps.end(began, "creat", path)
