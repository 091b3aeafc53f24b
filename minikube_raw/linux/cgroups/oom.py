"""How often the kernel killed for want of memory in a cgroup: one line of one file, read without anything else of this package.

A keeper reads it when a container ends, and what a keeper runs it stops sharing with the launcher.
"""

from __future__ import annotations

import os

_KEY = b"oom_kill "


def kills(path: str) -> int:
    """Returns the counter in a memory.oom_control (v1, Linux ≥ 4.13) or memory.events.local (v2); 0 if there is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        content = os.read(file, 4096)
    finally:
        os.close(file)
    start = content.find(_KEY) + len(_KEY)
    return int(content[start : content.find(b"\n", start)]) if start >= len(_KEY) else 0
