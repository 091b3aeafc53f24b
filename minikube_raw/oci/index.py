"""The store's index: which references name which manifests. One OCI `index.json`, replaced atomically under a lock.

A reference is the canonical text in org.opencontainers.image.ref.name, so skopeo and umoci read the directory as
what it is, an OCI image layout. The previous index stays beside it; if a damaged disk or a curious hand
broke the present one, it is rebuilt from that and from the manifests among the blobs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from . import manifests
from .content import MAX_DOCUMENT, ContentError, ContentStore, atomic_file
from .locks import locked
from .manifests import Descriptor, Index, ManifestError

REF_NAME = "org.opencontainers.image.ref.name"
_log = logging.getLogger(__name__)


class ImageIndex:
    """index.json of one layout. Reading takes no lock; a change holds `lock` while one small file is written."""

    def __init__(self, layout: Path, content: ContentStore, *, lock: Path, scratch: Path) -> None:
        self._file = layout / "index.json"
        self._previous = layout / "index.previous.json"
        self._content = content
        self._lock = lock
        self._scratch = scratch
        self._seen: tuple[int, int, int] | None = None
        self._descriptors: tuple[Descriptor, ...] = ()

    def read(self) -> tuple[Descriptor, ...]:
        """All descriptors, one per reference (an image without a reference has one without annotation)."""
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return ()
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        if identity != self._seen:
            try:
                self._descriptors = _parse(self._file)
            except ManifestError:
                return self._rebuild()
            self._seen = identity
        return self._descriptors

    def find(self, reference: str) -> Descriptor | None:
        """The manifest a canonical reference names."""
        return next((d for d in self.read() if d.annotations.get(REF_NAME) == reference), None)

    def change(self, edit: Callable[[list[Descriptor]], list[Descriptor]]) -> None:
        """Replace the index by `edit(current)`; concurrent changes follow one another."""
        with locked(self._lock):
            self._write(edit(list(self.read_locked())))

    def read_locked(self) -> tuple[Descriptor, ...]:
        """As `read`, for holders of the lock."""
        if not self._file.exists():
            return ()
        try:
            return _parse(self._file)
        except ManifestError as error:
            return self._recovered(error)

    def _rebuild(self) -> tuple[Descriptor, ...]:
        with locked(self._lock):
            descriptors = self.read_locked()
            self._write(list(descriptors))
        return descriptors

    def _write(self, descriptors: list[Descriptor]) -> None:
        with suppress(FileNotFoundError, ManifestError):
            _parse(self._file)  # a damaged one must not become the spare
            _link_over(self._file, self._previous)
        with atomic_file(self._file, self._scratch) as file:
            file.write(msgspec.json.encode(Index(manifests=sorted(descriptors, key=_order))))

    def _recovered(self, error: ManifestError) -> tuple[Descriptor, ...]:
        """What can still be known, the damaged file being put aside."""
        aside = self._file.with_name("index.damaged.json")
        _link_over(self._file, aside)
        known: list[Descriptor] = []
        with suppress(OSError, ManifestError):
            known = [d for d in _parse(self._previous) if self._content.has(d.digest)]
        mentioned = {d.digest for d in known}
        known += [d for d in self._manifests_among_blobs() if d.digest not in mentioned]
        _log.warning("%s; kept as %s, %d images found again", error, aside, len({d.digest for d in known}))
        return tuple(known)

    def _manifests_among_blobs(self) -> Iterator[Descriptor]:
        for digest in self._content.digests():
            size = self._content.size(digest)
            if size > MAX_DOCUMENT:
                continue
            with suppress(ContentError, ManifestError):
                manifest = manifests.decode_manifest(self._content.read(digest))
                yield Descriptor(media_type=manifest.media_type, digest=digest, size=size)


def _parse(file: Path) -> tuple[Descriptor, ...]:
    try:
        return tuple(manifests.decode_index(file.read_bytes()).manifests)
    except ManifestError as error:
        raise ManifestError(f"the image index {file} is damaged ({error})") from error


def _link_over(file: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    os.link(file, target)


def _order(descriptor: Descriptor) -> tuple[str, str]:
    return descriptor.annotations.get(REF_NAME, ""), descriptor.digest
