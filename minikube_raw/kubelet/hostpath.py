"""hostPath volumes: what must be at a path of the node, what is made there, and upstream's words when it is not so.

The path is the administrator's: links in it are followed, and nothing of it is ever given to a group or removed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from minikube_raw.api.core import HostPathVolumeSource

_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "is not a directory"),
    "File": (stat.S_ISREG, "is not a file"),
    "Socket": (stat.S_ISSOCK, "is not a socket file"),
    "CharDevice": (stat.S_ISCHR, "is not a character device"),
    "BlockDevice": (stat.S_ISBLK, "is not a block device"),
}
_UNCHECKED = ("", "DirectoryOrCreate", "FileOrCreate")


def set_up(source: HostPathVolumeSource) -> None:
    """Make what …OrCreate asks for, and refuse what is not of the type asked for. Raises ValueError, OSError.

    With no type a missing path becomes a directory, as container runtimes have done since Docker.
    """
    if ".." in source.path.split("/"):
        raise ValueError(f"invalid HostPath `{source.path}`: must not contain '..'")
    kind = source.type.removesuffix("OrCreate")
    if kind not in _CHECKS and source.type not in _UNCHECKED:
        raise ValueError(f"{source.type} is an invalid volume type")
    if not os.path.lexists(source.path) and source.type in _UNCHECKED:
        _make(Path(source.path), source.type)
    if kind:
        _check(source.path, kind)


def _make(path: Path, kind: str) -> None:
    is_file = kind == "FileOrCreate"
    try:
        if is_file:
            path.touch(mode=0o644)
        else:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        text = (error.strerror or "").lower()
        raise ValueError(f"{'open' if is_file else 'mkdir'} {error.filename}: {text}") from error


def _check(path: str, kind: str) -> None:
    fits, complaint = _CHECKS[kind]
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    if not fits(mode):
        raise ValueError(f"hostPath type check failed: {path} {complaint}")
