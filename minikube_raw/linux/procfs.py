"""Files of procfs that are written with more rights than whoever may have arranged /proc: opened so that nothing else stands in.

A tmpfs over /proc, a bind mount or a link in it would turn the write of a label or a sysctl into a write of root to another
file, or into none at all (CVE-2025-52881).
"""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import c_int, c_void_p

from . import paths
from .syscalls import bind, checked

PROC_SUPER_MAGIC = 0x9FA0
PROC_ROOT_INO = 1
_STATFS_SIZE = 256  # struct statfs has 120 bytes on 64-bit machines

_fstatfs = bind("fstatfs", c_int, c_void_p)


def open_file(path: str, flags: int) -> int:
    """Opens a file below /proc ("sys/net/…"), closed on exec.

    Raises OSError: ENODEV when /proc or the file is not procfs, EXDEV or ELOOP when a mount or a link is in the way.
    """
    root = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not _is_procfs(root) or os.fstat(root).st_ino != PROC_ROOT_INO:
            raise OSError(errno.ENODEV, "not procfs", "/proc")
        resolve = paths.RESOLVE_NO_SYMLINKS | paths.RESOLVE_NO_XDEV
        file = paths.open_beneath(root, path, flags, resolve=resolve)
    finally:
        os.close(root)
    if not _is_procfs(file):
        os.close(file)
        raise OSError(errno.ENODEV, "not procfs", f"/proc/{path}")
    return file


def _is_procfs(descriptor: int) -> bool:
    found = ctypes.create_string_buffer(_STATFS_SIZE)
    checked("fstatfs", descriptor, _fstatfs, descriptor, ctypes.addressof(found))
    return int.from_bytes(found.raw[:8], "little") == PROC_SUPER_MAGIC  # f_type, a long
