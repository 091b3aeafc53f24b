"""Unpacks one image layer into one directory, in the form overlayfs wants its lower directories.

Whiteouts (`.wh.NAME`, `.wh..wh..opq`; OCI image spec, layer.md) become character devices 0/0 and the xattr
trusted.overlay.opaque. The archive is hostile: names resolve through `rooted`, device nodes are left out, bytes and
entries have limits. Owners, modes, times and xattrs are kept, so this needs root. Digests are checked by the caller.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from . import tarstream
from .rooted import OPAQUE, EscapeError, LowerLayers, Rooted, is_whiteout, lstat
from .tarstream import Entry, TarReader

WHITEOUT = ".wh."
OPAQUE_MARK = ".wh..wh..opq"
AUFS_PREFIX = ".wh..wh."  # AUFS' own bookkeeping, which old docker versions exported
KEPT_XATTRS = ("user.", "security.capability", "system.posix_acl_")
REFUSED_XATTRS = ("trusted.overlay.", "user.overlay.")  # these would steer overlayfs itself
MAX_ID = 2**32 - 2  # chown(2) takes -1 as "leave it"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LayerError(ValueError):
    """The layer cannot be unpacked: it is malformed, leads outside, or exceeds a limit."""


class Limits(NamedTuple):
    """What one layer may become: bytes and entries on disk."""

    bytes: int = 64 << 30
    entries: int = 2_000_000


DEFAULT_LIMITS = Limits()


def unpack_layer(
    stream: IO[bytes],
    target: Path,
    *,
    lowers: Sequence[Path] = (),
    limits: Limits = DEFAULT_LIMITS,
    removed: Iterable[str] = (),
) -> list[str]:
    """Unpack the plain tar `stream` into the empty directory `target`, reading it to its end.

    `lowers` are the layers below, uppermost first; `removed` are names in them that this layer hides, beside its whiteouts.
    Returns what was left out, a line each (device nodes, foreign xattrs). Raises LayerError; OSError when the disk is full
    or fails. `target` is then half filled: remove it.
    """
    with Rooted(target, LowerLayers(lowers)) as root:
        unpacking = _Unpacking(root, limits)
        try:
            unpacking.run(TarReader(stream))
            unpacking.hide(removed)
        except (tarstream.TarError, EscapeError) as error:
            raise LayerError(str(error)) from error
    return unpacking.left_out


class _Unpacking:
    def __init__(self, root: Rooted, limits: Limits) -> None:
        self._root = root
        self._limits = limits
        self._bytes = 0
        self._directory_times: dict[tuple[str, ...], float] = {}
        self.left_out: list[str] = []

    def run(self, reader: TarReader) -> None:
        for count, entry in enumerate(reader):
            if count >= self._limits.entries:
                raise LayerError(f"more than {self._limits.entries} entries")
            self._entry(entry, reader)
        reader.drain()
        self._set_directory_times()

    def hide(self, names: Iterable[str]) -> None:
        """Hide names of lower layers that no member's name tells of."""
        for name in names:
            if parts := split_name(os.fsencode(name)):
                self._whiteout(self._root.directory(parts[:-1]), f"{WHITEOUT}{parts[-1]}")

    def _entry(self, entry: Entry, reader: TarReader) -> None:
        parts = split_name(entry.name)
        if any(part.startswith(AUFS_PREFIX) and part != OPAQUE_MARK for part in parts):
            return
        if any(part.startswith(WHITEOUT) for part in parts[:-1]):
            raise LayerError(f"{entry.name!r}: a whiteout cannot be a directory")
        if not parts:
            self._root_directory(entry)
            return
        parent, name = self._root.directory(parts[:-1]), parts[-1]
        try:
            if name.startswith(WHITEOUT):
                self._whiteout(parent, name)
            else:
                self._create(entry, parts, parent, name, reader)
        except OSError as error:
            error.filename = entry.name
            raise

    def _root_directory(self, entry: Entry) -> None:
        if entry.type != tarstream.DIRECTORY:
            raise LayerError("the root of a layer must be a directory")
        self._finish(self._root.directory(()), entry)
        self._directory_times[()] = entry.mtime

    def _whiteout(self, parent: int, name: str) -> None:
        """A whiteout hides what lower layers have, never what this layer brings (layer.md, "Whiteouts")."""
        if name == OPAQUE_MARK:
            os.setxattr(parent, OPAQUE, b"y")
            return
        hidden = name.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            raise LayerError(f"{name!r} is no whiteout of a name")
        here = lstat(parent, hidden)
        if here is None:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        elif stat.S_ISDIR(here.st_mode):
            descriptor = os.open(hidden, _DIRECTORY, dir_fd=parent)
            os.setxattr(descriptor, OPAQUE, b"y")
            os.close(descriptor)

    def _create(self, entry: Entry, parts: tuple[str, ...], parent: int, name: str, reader: TarReader) -> None:
        if entry.type in (tarstream.CHARACTER, tarstream.BLOCK_DEVICE):
            self.left_out.append(f"device node {'/'.join(parts)}")
            return
        if not (0 <= entry.uid <= MAX_ID and 0 <= entry.gid <= MAX_ID):
            raise LayerError(f"{entry.name!r} has an owner outside 0…{MAX_ID}")
        if entry.type == tarstream.DIRECTORY:
            self._directory(entry, parts, parent, name)
            return
        if entry.type == tarstream.HARD_LINK:
            self._hard_link(entry, parts)
            return
        self._replace(parent, name)
        if entry.type == tarstream.REGULAR:
            self._regular(entry, parent, name, reader)
        elif entry.type == tarstream.SYMLINK:
            self._symlink(entry, parent, name)
        else:
            os.mkfifo(name, 0o600, dir_fd=parent)
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            os.chmod(name, entry.mode, dir_fd=parent)

    def _replace(self, parent: int, name: str) -> None:
        """Make room: the archive's later entry wins, and a link at the name is replaced, never written through."""
        if lstat(parent, name) is not None:
            self._root.remove(parent, name)

    def _directory(self, entry: Entry, parts: tuple[str, ...], parent: int, name: str) -> None:
        here = lstat(parent, name)
        if here is None or not stat.S_ISDIR(here.st_mode):
            self._replace(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            if here is not None and is_whiteout(here):
                os.setxattr(descriptor, OPAQUE, b"y")
            self._finish(descriptor, entry)
        finally:
            os.close(descriptor)
        self._directory_times[parts] = entry.mtime

    def _regular(self, entry: Entry, parent: int, name: str, reader: TarReader) -> None:
        self._bytes += entry.size
        if self._bytes > self._limits.bytes:
            raise LayerError(f"unpacks to more than {self._limits.bytes} bytes")
        with open(os.open(name, _NEW_FILE, 0o600, dir_fd=parent), "wb") as file:
            position = 0
            for offset, data in reader.content():
                if offset != position:
                    file.seek(offset)
                file.write(data)
                position = offset + len(data)
            file.flush()
            if position < entry.size:
                os.ftruncate(file.fileno(), entry.size)
            self._finish(file.fileno(), entry)
            os.utime(file.fileno(), ns=_times(entry.mtime))

    def _symlink(self, entry: Entry, parent: int, name: str) -> None:
        os.symlink(entry.link, name, dir_fd=parent)
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=_times(entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _hard_link(self, entry: Entry, parts: tuple[str, ...]) -> None:
        """Both ends resolve inside the layer; linkat(2) without AT_SYMLINK_FOLLOW links a link itself."""
        source = split_name(entry.link)
        if not source or any(part.startswith(WHITEOUT) for part in source):
            raise LayerError(f"{entry.name!r} is a hard link to {entry.link!r}")
        if source == parts:
            raise LayerError(f"{entry.name!r} is a hard link to itself")
        source_parent = os.dup(self._root.directory(source[:-1]))
        try:
            here = lstat(source_parent, source[-1])
            if here is None or is_whiteout(here) or stat.S_ISDIR(here.st_mode):
                raise LayerError(f"{entry.name!r} is a hard link to {entry.link!r}, which is no file of this layer")
            parent = self._root.directory(parts[:-1])
            self._replace(parent, parts[-1])
            os.link(source[-1], parts[-1], src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source_parent)

    def _finish(self, descriptor: int, entry: Entry) -> None:
        """Owner, mode, xattrs, in this order: chown(2) clears set-id bits and file capabilities."""
        os.fchown(descriptor, entry.uid, entry.gid)
        os.fchmod(descriptor, entry.mode)
        for key, value in entry.xattrs.items():
            name = os.fsdecode(key)
            if name.startswith(REFUSED_XATTRS) or not name.startswith(KEPT_XATTRS):
                self.left_out.append(f"xattr {name} of {os.fsdecode(entry.name)}")
                continue
            try:
                os.setxattr(descriptor, name, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                self.left_out.append(f"xattr {name} of {os.fsdecode(entry.name)}: not supported by this file system")

    def _set_directory_times(self) -> None:
        """Last, since each entry made in a directory touches it; a directory replaced meanwhile is passed over."""
        for parts, mtime in self._directory_times.items():
            if (descriptor := self._root.existing(parts)) is not None:
                os.utime(descriptor, ns=_times(mtime))
                os.close(descriptor)


def split_name(name: bytes) -> tuple[str, ...]:
    """Components of a member's name: absolute names count from the root, `..` is refused wherever it stands.

    Raises LayerError.
    """
    parts = tuple(part for part in os.fsdecode(name).split("/") if part not in ("", "."))
    if ".." in parts:
        raise LayerError(f"{name[:200]!r} leads outside")
    return parts


def _times(mtime: float) -> tuple[int, int]:
    nanoseconds = int(max(-(2.0**31), min(mtime, 2.0**33)) * 1_000_000_000)
    return nanoseconds, nanoseconds
