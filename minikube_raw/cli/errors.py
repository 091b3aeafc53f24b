"""What a command says when it cannot: one line what failed on what, one line with the cure."""

from __future__ import annotations

import errno
import os
from typing import IO, Any

import click

from minikube_raw.api.plain_text import one_line

_ELSEWHERE = "name other directories with --state-dir and --run-dir"
_CURES = {
    errno.ENOSPC: f"free space on that disk, or {_ELSEWHERE}",
    errno.EDQUOT: f"free space within the quota, or {_ELSEWHERE}",
    errno.ENOTDIR: _ELSEWHERE,
    errno.EROFS: f"it lies on a read-only file system: {_ELSEWHERE}",
}


class Failure(click.ClickException):
    """An expected failure. `cure` is what the user can do about it, or empty where nothing sensible can be said."""

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.cure = cure

    def show(self, file: IO[Any] | None = None) -> None:
        """Print both lines to standard error; text of others in them cannot make a third."""
        click.echo(f"minikube-raw: {one_line(self.message)}", err=True)
        if self.cure:
            click.echo(f"  {one_line(self.cure)}", err=True)


def from_os_error(error: OSError) -> Failure:
    """Put an OSError that nobody expected into the two-line form."""
    what = f"{error.filename}: " if error.filename else ""
    cure = _CURES.get(error.errno or 0, "run it again with --debug for the traceback")
    if isinstance(error, PermissionError):
        cure = (
            "run it as root"
            if not _is_root()
            else "something on this host forbids it (a security module, or a missing capability)"
        )
    return Failure(f"{what}{error.strerror or error}", cure)


def need_root(action: str) -> None:
    """Raise Failure unless we are root: namespaces, mounts and cgroups of this kind need it."""
    if not _is_root():
        raise Failure(f"{action} needs root: it makes namespaces, mounts and cgroups", "run it with sudo")


def _is_root() -> bool:
    return os.geteuid() == 0
