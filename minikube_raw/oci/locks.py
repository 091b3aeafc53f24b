"""Locks between processes: kubelets of several nodes and the command line share one image store.

flock(2) on files that stay: the kernel releases them when their holder dies, so there is nothing stale to clean up.
Each call opens the file anew, so threads of one process exclude each other as well. They block: call from a thread.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold the lock at `path`, waiting for it as long as it takes, or (`wait=False`) raise BlockingIOError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)
