"""Changes in directories without polling: inotify(7), one descriptor for everything a process watches."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from .syscalls import bind, checked

IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200

_HEADER = struct.Struct("iIII")
_init1 = bind("inotify_init1", ctypes.c_int)
_add_watch = bind("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_rm_watch = bind("inotify_rm_watch", ctypes.c_int, ctypes.c_int)


class Event(NamedTuple):
    """A change: which watch, what (IN_ bits), and the entry's name in a watched directory."""

    watch: int
    mask: int
    name: str


def inotify_init() -> int:
    """Returns a non-blocking inotify descriptor. EMFILE: this user has no instance left (max_user_instances)."""
    return checked("inotify_init1", "", _init1, os.O_NONBLOCK | os.O_CLOEXEC)


def add_watch(fd: int, path: str, mask: int) -> int:
    """Watches a file or directory; the same path again gives the same watch, with the new mask."""
    return checked("inotify_add_watch", path, _add_watch, fd, os.fsencode(path), mask)


def remove_watch(fd: int, watch: int) -> None:
    """Ends a watch; one whose directory is gone has ended already, which is fine."""
    _rm_watch(fd, watch)


def read_events(fd: int) -> Iterator[Event]:
    """Yields the changes that wait to be read."""
    try:
        data = os.read(fd, 65_536)
    except BlockingIOError:
        return
    offset = 0
    while offset < len(data):
        watch, mask, _cookie, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        yield Event(watch, mask, os.fsdecode(data[offset : offset + length].rstrip(b"\0")))
        offset += length
