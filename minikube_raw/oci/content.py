"""Blobs by digest: written once, checked while they stream, read by name ever after.

The directory is `blobs/sha256/` of an OCI image layout. A blob appears there whole or not at all: bytes go to a
temporary file, are hashed on the way, synced, and renamed. Which blobs belong to which image is the index's business.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from minikube_raw.linux.durability import sync_directory

CHUNK = 1 << 20
MAX_DOCUMENT = 4 << 20  # manifests, configs and indexes; containerd and the distribution spec draw the line there too


class ContentError(Exception):
    """A blob is not what its name or descriptor says."""


class BlobMissing(ContentError):
    """No blob of that digest is in the store."""


class Digester:
    """sha256 and size of whatever passes through `update`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def update(self, data: bytes) -> None:
        """Count and hash one chunk."""
        self._hash.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of all bytes so far."""
        return f"sha256:{self._hash.hexdigest()}"


def digest_of(data: bytes) -> str:
    """`sha256:<hex>` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """The rest of a stream in pieces of at most CHUNK bytes."""
    while data := stream.read(CHUNK):
        yield data


@contextmanager
def atomic_file(target: Path, scratch: Path) -> Iterator[IO[bytes]]:
    """Write a file that is either the old one or the complete, synced new one; `scratch` is on the same file system."""
    fd, name = tempfile.mkstemp(dir=scratch)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


class ContentStore:
    """All blobs below one image layout; `scratch` holds what is still being written."""

    def __init__(self, layout: Path, scratch: Path) -> None:
        self._blobs = layout / "blobs" / "sha256"
        self._scratch = scratch
        self._blobs.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a blob lies, whether or not it is there. The digest must have been checked by `reference.is_digest`."""
        return self._blobs / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        """Whether the blob is complete."""
        return self.path(digest).exists()

    def digests(self) -> list[str]:
        """Every blob in the store."""
        return [f"sha256:{name}" for name in sorted(os.listdir(self._blobs))]

    def size(self, digest: str) -> int:
        """Bytes of one blob; raises BlobMissing."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise BlobMissing(f"blob {digest} is not in the image store") from None

    def open(self, digest: str) -> io.BufferedReader:
        """Open one blob for reading; raises BlobMissing."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise BlobMissing(f"blob {digest} is not in the image store") from None

    def read(self, digest: str) -> bytes:
        """A small blob (manifest, config), checked against its digest again, since disks decay."""
        with self.open(digest) as file:
            data = file.read(MAX_DOCUMENT + 1)
        if len(data) > MAX_DOCUMENT:
            raise ContentError(f"blob {digest} is larger than the {MAX_DOCUMENT} bytes a manifest or config may have")
        if digest_of(data) != digest:
            raise ContentError(f"blob {digest} is damaged: its bytes have digest {digest_of(data)}")
        return data

    def write(self, data: Iterable[bytes], *, digest: str, size: int | None = None) -> None:
        """Store a stream under the digest it must have; a difference is a ContentError and leaves nothing."""
        if self.has(digest):
            return
        seen = Digester()
        with atomic_file(self.path(digest), self._scratch) as file:
            for chunk in data:
                seen.update(chunk)
                if size is not None and seen.size > size:
                    raise ContentError(f"blob {digest} is longer than the {size} bytes its descriptor says")
                file.write(chunk)
            if size is not None and seen.size != size:
                raise ContentError(f"blob {digest} has {seen.size} bytes, its descriptor says {size}")
            if seen.digest != digest:
                raise ContentError(f"blob {digest} has digest {seen.digest}")

    def adopt(self, file: Path, digest: str) -> None:
        """Take over a file of our own scratch directory whose digest was computed while it was written."""
        if self.has(digest):
            return
        with file.open("rb") as written:
            os.fsync(written.fileno())
        os.rename(file, self.path(digest))
        sync_directory(self._blobs)

    def add(self, data: bytes) -> str:
        """Store bytes made here and return their digest."""
        digest = digest_of(data)
        self.write([data], digest=digest)
        return digest

    def remove(self, digest: str) -> None:
        """Forget one blob; absent is fine."""
        self.path(digest).unlink(missing_ok=True)
