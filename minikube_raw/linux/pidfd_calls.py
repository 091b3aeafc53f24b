"""The kernel's pidfd calls that the standard library lacks (it has os.pidfd_open and os.waitid), one function each."""

from __future__ import annotations

import fcntl
import struct
from ctypes import c_int, c_uint, c_void_p

from .syscalls import bind_syscall, checked

# struct pidfd_info of linux/pidfd.h is 64 bytes at first: a mask in front, the wait status last.
PIDFD_GET_INFO = 0xC040FF0B
PIDFD_INFO_EXIT = 1 << 3
_INFO_SIZE = 64
_EXIT_CODE_OFFSET = 60

_pidfd_send_signal = bind_syscall("pidfd_send_signal", c_int, c_int, c_void_p, c_uint)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2)."""
    checked("pidfd_send_signal", f"signal {signal}", _pidfd_send_signal, pidfd, signal, None, 0)


def pidfd_exit_status(pidfd: int) -> int | None:
    """ioctl(PIDFD_GET_INFO): the wait status of a process reaped by whomever; None when the kernel does not say."""
    buffer = bytearray(_INFO_SIZE)
    struct.pack_into("=Q", buffer, 0, PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, buffer)
    except OSError:  # ENOTTY before 6.13, ESRCH before 6.15
        return None
    (mask,) = struct.unpack_from("=Q", buffer, 0)
    (status,) = struct.unpack_from("=i", buffer, _EXIT_CODE_OFFSET)
    return status if mask & PIDFD_INFO_EXIT else None
