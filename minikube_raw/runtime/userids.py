"""Ranges of user and group ids for pods with a user namespace of their own: 65,536 each, no two alike on one host.

Nodes on one host know nothing of each other, so ranges are claimed in a directory of the host's: a file per range, holding
the path of the sandbox's record. A claim whose record is gone is free. The directory is a tmpfs: no namespace outlives a boot.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress

from .cri import RuntimeServiceError

DIRECTORY = "/run/lock/minikube-raw-user-ids"
COUNT = 65_536
FIRST = 0x7000_0000  # above what systemd-nspawn takes for itself (0x00080000 to 0x6FFFFFFF)
LAST = 0x7FFE_0000


def claim(record: str, write_record: Callable[[int], None], directory: str = DIRECTORY) -> int:
    """Claims a range for the sandbox whose record will be at `record`; `write_record` writes it, with the range's first id.

    Raises RuntimeServiceError (CreatePodSandboxError) when none is left.
    """
    lock = _lock(directory)
    try:
        taken = set(os.listdir(directory))
        for first in range(FIRST, LAST + 1, COUNT):
            if str(first) not in taken or _is_stale(f"{directory}/{first}"):
                with open(f"{directory}/{first}", "w", encoding="utf-8") as file:
                    file.write(record)
                write_record(first)
                return first
    finally:
        os.close(lock)
    raise RuntimeServiceError("CreatePodSandboxError", "no range of user ids is left on this host")


def release(first: int, directory: str = DIRECTORY) -> None:
    """Gives a range back; one that was given back is fine."""
    lock = _lock(directory)
    try:
        with suppress(FileNotFoundError):
            os.unlink(f"{directory}/{first}")
        _remove_if_empty(directory)
    finally:
        os.close(lock)


def sweep(directory: str = DIRECTORY) -> None:
    """Gives back the ranges of sandboxes that are gone, as after a node was taken down; leaves nothing where nothing is claimed."""
    if not os.path.isdir(directory):
        return
    lock = _lock(directory)
    try:
        for name in os.listdir(directory):
            if _is_stale(f"{directory}/{name}"):
                os.unlink(f"{directory}/{name}")
        _remove_if_empty(directory)
    finally:
        os.close(lock)


def _lock(directory: str) -> int:
    """Makes the directory and locks it: the one that has the name, not one that was removed while we waited."""
    while True:
        os.makedirs(directory, 0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(directory) and os.path.samestat(os.fstat(lock), os.stat(directory)):
                return lock
            os.close(lock)


def _remove_if_empty(directory: str) -> None:
    with suppress(OSError):
        os.rmdir(directory)


def _is_stale(path: str) -> bool:
    with open(path, encoding="utf-8") as file:
        return not os.path.exists(file.read())
