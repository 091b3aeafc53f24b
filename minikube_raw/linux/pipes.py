"""Pipes looked into without taking anything out, and moved from one to another without a copy in this process's memory.

With both, a process can log what comes through a pipe and be killed at any moment without a byte lost: a byte is in a
pipe that somebody else holds too, until it is where it belongs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from ctypes import c_int, c_size_t, c_ssize_t, c_uint

from .syscalls import bind, raise_errno

SPLICE_F_MOVE = 1
SPLICE_F_NONBLOCK = 2
FIONREAD = 0x541B

_tee = bind("tee", c_int, c_int, c_size_t, c_uint, restype=c_ssize_t)


def waiting(fd: int) -> int:
    """Returns how many bytes wait in a pipe."""
    (count,) = struct.unpack("i", fcntl.ioctl(fd, FIONREAD, bytes(4)))
    return int(count)


def full(fd: int) -> bool:
    """Whether a pipe takes nothing more: it has room for a number of pages, and what was moved into it takes one however small."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return not poll.poll(0)


def move(source: int, pipe: int, size: int) -> int:
    """splice(2): moves up to `size` bytes into a pipe; returns how many, 0 at the end. BlockingIOError when there are none.

    A source that cannot be spliced (some terminals) is read and written instead.
    """
    try:
        return os.splice(source, pipe, size, flags=SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.write(pipe, chunk) if (chunk := os.read(source, min(size, 4096))) else 0


def peek(pipe: int, scratch: tuple[int, int], size: int) -> bytes:
    """Returns up to `size` bytes that wait in a pipe, and leaves them there; `scratch` is an empty pipe of at least its size."""
    reader, writer = scratch
    copied = _tee(pipe, writer, size, SPLICE_F_NONBLOCK)
    if copied < 0:
        raise_errno("tee")
    return os.read(reader, copied) if copied else b""
