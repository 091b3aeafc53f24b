"""The command line that ps shows for a forked process of ours, written over the one it was started with.

PR_SET_MM would be the clean way but needs CAP_SYS_RESOURCE, which some hosts do not have.
"""

from __future__ import annotations

import ctypes

from . import process


def set_title(title: str) -> None:
    """Shows `title` as the process's arguments, cut to the length of the original ones, and its first 15 bytes as its name."""
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    fields = stat[stat.rindex(b")") + 2 :].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, fields 48 and 49 of proc_pid_stat(5)
    room = end - start
    if room > 1:
        text = title.encode()[: room - 1]
        ctypes.memset(start, 0, room)
        ctypes.memmove(start, text, len(text))
    process.set_name(title)
