"""The command line that ps shows for a forked process of ours, written over the one it was started with.

PR_SET_MM would be the clean way but needs CAP_SYS_RESOURCE, which some hosts do not have.
"""

from __future__ import annotations

import ctypes
import os

_area: memoryview | None = None


def set_title(title: str) -> None:
    """Shows `title` as the process's arguments, cut to the length of the original ones, and its first 15 bytes as its name.

    A fork of a process that has called this needs no ctypes for it, whose pages it then goes on sharing.
    """
    global _area
    if _area is None:
        _area = _arguments()
    if len(_area) > 1:
        _area[:] = title.encode()[: len(_area) - 1].ljust(len(_area), b"\0")
    name = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(name, title.encode()[:15])
    finally:
        os.close(name)


def _arguments() -> memoryview:
    """Returns the memory in which the kernel looks for the process's arguments."""
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    fields = stat[stat.rindex(b")") + 2 :].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, fields 48 and 49 of proc_pid_stat(5)
    return memoryview((ctypes.c_char * (end - start)).from_address(start)).cast("B")
