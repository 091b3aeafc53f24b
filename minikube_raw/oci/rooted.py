"""Path resolution inside one directory, as if chrooted there, by descriptors only.

A layer's names are hostile: each component is opened with O_NOFOLLOW below the descriptor of its parent, and links are
followed by hand, with the root as ceiling. So no name, link or `..` reaches anything outside, and no check can be
raced. Missing parents are made; if a lower layer has the directory, with its owner and mode, since overlayfs shows the
uppermost directory's.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

MAX_DEPTH = 256  # directories open at once
MAX_LINKS = 40  # the kernel's own limit (path_resolution(7))
OPAQUE = "trusted.overlay.opaque"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class EscapeError(ValueError):
    """A name that cannot be resolved inside the root."""


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this is overlayfs' mark for "removed here": a character device 0/0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def lstat(directory: int, name: str) -> os.stat_result | None:
    """The entry itself, or None."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def is_opaque(directory: int | Path) -> bool:
    """Whether overlayfs hides what lower layers have in this directory."""
    try:
        return os.getxattr(directory, OPAQUE) == b"y"
    except OSError:  # ENODATA: not marked; ENOTSUP: a file system that cannot carry the mark
        return False


class LowerLayers:
    """What the layers below show at a path: the question overlayfs answers at run time."""

    def __init__(self, layers: Sequence[Path] = ()) -> None:
        """`layers` uppermost first."""
        self._layers = layers

    def lookup(self, parts: Sequence[str]) -> tuple[os.stat_result, str] | None:
        """(lstat, link target or "") of a path without links in its parents; None when no layer shows it."""
        for layer in self._layers:
            directory = os.open(layer, _OPEN)
            try:
                hidden = is_opaque(directory)
                for part in parts[:-1]:
                    status = lstat(directory, part)
                    if status is None:
                        break
                    if not stat.S_ISDIR(status.st_mode):
                        return None  # removed or replaced here: deeper layers do not show through
                    child = os.open(part, _OPEN, dir_fd=directory)
                    os.close(directory)
                    directory = child
                    hidden = hidden or is_opaque(directory)
                else:
                    found = lstat(directory, parts[-1])
                    if found is not None:
                        link = os.readlink(parts[-1], dir_fd=directory) if stat.S_ISLNK(found.st_mode) else ""
                        return None if is_whiteout(found) else (found, link)
            finally:
                os.close(directory)
            if hidden:
                return None
        return None


class Rooted:
    """One directory being filled. Close it (or use `with`) to give the descriptors back."""

    def __init__(self, root: Path, lowers: LowerLayers | None = None) -> None:
        self._root = os.open(root, _OPEN)
        self._lowers = lowers or LowerLayers()
        self._cached_path: tuple[str, ...] | None = None
        self._cached = -1

    def __enter__(self) -> Rooted:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        os.close(self._root)

    def directory(self, parts: tuple[str, ...]) -> int:
        """Descriptor of the directory at `parts`, made if missing; it belongs to Rooted and lives until the next call.

        Raises EscapeError for a loop of links or a parent that is no directory.
        """
        if self._cached_path != parts:
            descriptor = self._walk(parts)
            self._forget()
            self._cached_path, self._cached = parts, descriptor
        return self._cached

    def _forget(self) -> None:
        if self._cached_path is not None:
            os.close(self._cached)
            self._cached_path = None

    def existing(self, parts: tuple[str, ...]) -> int | None:
        """A new descriptor of the directory at `parts` if it is there and no link leads to it; nothing is made."""
        directory = os.dup(self._root)
        for part in parts:
            try:
                child = os.open(part, _OPEN, dir_fd=directory)
            except OSError:  # ENOENT, ENOTDIR, ELOOP: not (any more) such a directory
                os.close(directory)
                return None
            os.close(directory)
            directory = child
        return directory

    def remove(self, directory: int, name: str) -> None:
        """Remove whatever is at `name`, with all below it."""
        status = lstat(directory, name)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=directory)
            return
        shutil.rmtree(name, dir_fd=directory)

    def _walk(self, parts: tuple[str, ...]) -> int:
        stack, names = [os.dup(self._root)], list[str]()
        todo, links = list(reversed(parts)), 0
        try:
            while todo:
                part = todo.pop()
                if part == "..":
                    if names:
                        os.close(stack.pop())
                        names.pop()
                    continue
                step = self._enter(stack[-1], names, part)
                if isinstance(step, str):
                    links += 1
                    if links > MAX_LINKS:
                        raise EscapeError(f"too many links on the way to {'/'.join(parts)}")
                    if step.startswith("/"):
                        _close_all(stack[1:])
                        del stack[1:], names[:]
                    todo += [item for item in reversed(step.split("/")) if item not in ("", ".")]
                    continue
                stack.append(step)
                names.append(part)
                if len(stack) > MAX_DEPTH:
                    raise EscapeError(f"more than {MAX_DEPTH} directories deep: {'/'.join(names)[:80]}…")
            return stack.pop()
        finally:
            _close_all(stack)

    def _enter(self, directory: int, above: list[str], name: str) -> int | str:
        """Descriptor of the directory `name`, or the target if it is a link (here, or in a lower layer that shows)."""
        status = lstat(directory, name)
        if status is None:
            found = self._lowers.lookup([*above, name])
            if found and stat.S_ISLNK(found[0].st_mode):
                return found[1]
            return _make_directory(directory, name, found[0] if found else None)
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=directory)
        if is_whiteout(status):
            os.unlink(name, dir_fd=directory)
            made = _make_directory(directory, name, None)
            os.setxattr(made, OPAQUE, b"y")
            return made
        if not stat.S_ISDIR(status.st_mode):
            raise EscapeError(f"{'/'.join([*above, name])} is not a directory")
        return os.open(name, _OPEN, dir_fd=directory)


def _make_directory(parent: int, name: str, like: os.stat_result | None) -> int:
    os.mkdir(name, dir_fd=parent)
    made = os.open(name, _OPEN, dir_fd=parent)
    if like is not None and stat.S_ISDIR(like.st_mode):
        os.fchown(made, like.st_uid, like.st_gid)
        os.fchmod(made, stat.S_IMODE(like.st_mode))
    else:
        os.fchmod(made, 0o755)
    return made


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
