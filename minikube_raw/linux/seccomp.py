"""seccomp(2): installs a filter that was compiled elsewhere, as bytes.

A filter is the last thing before exec, so its step is recorded when it is prepared: afterwards nobody could be told any
more. Without no_new_privs the kernel asks for CAP_SYS_ADMIN in the process's user namespace.
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint, c_void_p

from . import steps
from .syscalls import bind_syscall, raise_errno

SECCOMP_SET_MODE_FILTER = 1
INSTRUCTION_SIZE = 8

_seccomp = bind_syscall("seccomp", c_uint, c_uint, c_void_p)


class sock_fprog(ctypes.Structure):
    """struct sock_fprog of seccomp(2)."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class Filter:
    """A filter ready to be installed."""

    __slots__ = ("_code", "_programme")

    def __init__(self, code: bytes) -> None:
        began = steps.begin()
        self._code = ctypes.create_string_buffer(code, len(code))
        self._programme = sock_fprog(len(code) // INSTRUCTION_SIZE, ctypes.addressof(self._code))
        steps.end(began, "seccomp", f"SET_MODE_FILTER {len(code) // INSTRUCTION_SIZE} instructions")

    def install(self) -> None:
        """From now on every system call of this thread, and of what it becomes, is judged. Raises OSError."""
        if _seccomp(SECCOMP_SET_MODE_FILTER, 0, ctypes.addressof(self._programme)) < 0:
            raise_errno("seccomp", "SET_MODE_FILTER")
