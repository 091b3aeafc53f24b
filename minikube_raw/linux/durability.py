"""Bringing files to disk: whole files that replace old ones in one step, and syncfs(2), which the standard library lacks."""

from __future__ import annotations

import ctypes
import os

from . import filenames
from .syscalls import bind, checked

_syncfs = bind("syncfs", ctypes.c_int)


def sync_file_system(directory: str) -> None:
    """syncfs(2): write back everything of the file system `directory` lies on; one call for thousands of files."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        checked("syncfs", directory, _syncfs, fd)
    finally:
        os.close(fd)


def write_file(path: str | os.PathLike[str], content: bytes, *, sync: bool = False, mode: int = 0o600) -> None:
    """Replaces the file at `path`: readers see the old or the new one, whole. Raises OSError that names the file.

    With `sync` it has survived a power cut once this returns (file and directory are fsynced).
    """
    directory, name = os.path.split(os.fspath(path))
    suffix = f".{os.getpid()}.tmp"
    temporary = os.path.join(directory, os.fsdecode(os.fsencode(name)[: filenames.LONGEST - len(suffix)]) + suffix)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(file, view) :]
        if sync:
            os.fsync(file)
    except OSError as error:  # write(2) knows no name, and what it has left is nobody's
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        os.close(file)
    os.rename(temporary, path)
    if sync:
        sync_directory(os.path.dirname(path) or os.curdir)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Makes names in a directory survive a power cut."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
