"""Files that are either old or new, never half: the one way in which launcher, keeper and kubelet write to disk.

Standard library only, since keepers write exit records with it.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write(path: str, content: bytes, *, sync: bool = False, mode: int = 0o600) -> None:
    """Replaces the file at `path`. With `sync` it has survived a power cut once this returns (file and directory are fsynced)."""
    temporary = f"{path}.{os.getpid()}.tmp"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(file, view) :]
        if sync:
            os.fsync(file)
    finally:
        os.close(file)
    os.rename(temporary, path)
    if sync:
        sync_directory(os.path.dirname(path))


def write_json(path: str, value: object, *, sync: bool = False) -> None:
    """write() of a JSON value."""
    write(path, json.dumps(value, separators=(",", ":")).encode(), sync=sync)


def read_json(path: str) -> dict[str, Any] | None:
    """Returns the object in a file, or None when there is no such file. Raises ValueError when it is not a JSON object."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value


def sync_directory(path: str) -> None:
    """Makes names in a directory survive a power cut."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
