"""The files of a layer being built, in memory: who put what where, decided before one byte is written.

Paths resolve as they will in the container: links of this layer and of the base image are followed inside the image.
`write_tar` is a pure function of the tree: entries sorted, owners numeric, one time stamp for all.
"""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path
from typing import IO, NamedTuple

from .rooted import MAX_LINKS, EscapeError, LowerLayers


class Node(NamedTuple):
    """A directory, link or regular file (whose bytes are `data` or the contents of `source`)."""

    kind: bytes  # tarfile's DIRTYPE, SYMTYPE, REGTYPE
    mode: int
    uid: int = 0
    gid: int = 0
    link: str = ""
    source: Path | None = None
    data: bytes = b""


def directory(mode: int = 0o755, uid: int = 0, gid: int = 0) -> Node:
    """A directory node."""
    return Node(tarfile.DIRTYPE, mode, uid, gid)


def symlink(target: str) -> Node:
    """A symbolic link node."""
    return Node(tarfile.SYMTYPE, 0o777, link=target)


def from_disk(path: Path) -> Node:
    """A node like what lies at `path`, owned by root. Raises ValueError for what an image cannot carry."""
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return symlink(str(path.readlink()))
    if stat.S_ISDIR(status.st_mode):
        return directory(mode)
    if stat.S_ISREG(status.st_mode):
        return Node(tarfile.REGTYPE, mode, source=path)
    raise ValueError(f"{path} is neither file, directory nor link")


class FileTree:
    """Nodes by path (components), on top of a base image's layers."""

    def __init__(self, base: LowerLayers | None = None) -> None:
        self._base = base or LowerLayers()
        self._nodes: dict[tuple[str, ...], Node] = {}

    def put(self, path: str, node: Node) -> None:
        """Put a node at `path`, making missing parents; a directory over a directory only changes its attributes.

        Raises EscapeError when a parent is no directory or links run in a circle.
        """
        parts = _split(path)
        if not parts:
            return
        parent = self.resolve(parts[:-1])
        self._make_parents(parent)
        target = (*parent, parts[-1])
        if node.kind == tarfile.DIRTYPE and (there := self._look(target)) and there[0] == tarfile.SYMTYPE:
            target = self.resolve(target)  # a package's ./lib on an image whose /lib is a link to usr/lib
            self._make_parents(target)
        self._nodes[target] = node

    def is_directory(self, path: str) -> bool:
        """Whether the image has a directory there, links followed."""
        parts = self.resolve(_split(path))
        there = self._look(parts)
        return not parts or (there is not None and there[0] == tarfile.DIRTYPE)

    def resolve(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """The path without links; missing components count as they are written."""
        done: list[str] = []
        todo, links = list(reversed(parts)), 0
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            there = self._look((*done, part))
            if there is None or there[0] != tarfile.SYMTYPE:
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise EscapeError(f"too many links on the way to /{'/'.join(parts)}")
            if there[1].startswith("/"):
                done.clear()
            todo += reversed(_split(there[1]))
        return tuple(done)

    def write_tar(self, file: IO[bytes], *, mtime: int) -> None:
        """Write the layer as a pax tar, byte for byte the same for the same tree."""
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for parts, node in sorted(self._nodes.items()):
                info = tarfile.TarInfo("/".join(parts))
                info.type, info.mode, info.uid, info.gid, info.mtime = node.kind, node.mode, node.uid, node.gid, mtime
                info.linkname = node.link
                if node.source is not None:
                    with node.source.open("rb") as source:
                        info.size = node.source.stat().st_size
                        tar.addfile(info, source)
                else:
                    info.size = len(node.data)
                    tar.addfile(info, io.BytesIO(node.data))

    def _look(self, parts: tuple[str, ...]) -> tuple[bytes, str] | None:
        """(kind, link target) at a path without links in its parents."""
        if node := self._nodes.get(parts):
            return node.kind, node.link
        found = self._base.lookup(parts) if parts else None
        if found is None:
            return None
        mode = found[0].st_mode
        kind = tarfile.DIRTYPE if stat.S_ISDIR(mode) else tarfile.SYMTYPE if stat.S_ISLNK(mode) else tarfile.REGTYPE
        return kind, found[1]

    def _make_parents(self, parts: tuple[str, ...]) -> None:
        for depth in range(1, len(parts) + 1):
            here = parts[:depth]
            if here in self._nodes:
                kind = self._nodes[here].kind
            elif found := self._base.lookup(here):
                kind = tarfile.DIRTYPE if stat.S_ISDIR(found[0].st_mode) else tarfile.REGTYPE
                self._nodes[here] = directory(stat.S_IMODE(found[0].st_mode), found[0].st_uid, found[0].st_gid)
            else:
                kind = tarfile.DIRTYPE
                self._nodes[here] = directory()
            if kind != tarfile.DIRTYPE:
                raise EscapeError(f"/{'/'.join(here)} is not a directory")


def _split(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))
