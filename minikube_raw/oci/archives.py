"""Images as files: reads OCI layouts (directory or tar) and docker-save tars, in one pass, whatever order they are in.

A tar's members are staged as files named by us, with their digests, since its documents may come after its blobs; only
what a manifest mentions is taken over. Writing archives is `exports`' part, unpacking layers the image store's.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

import msgspec

from . import compression, manifests, reference, tarstream
from .content import MAX_DOCUMENT, ContentError, ContentStore, Digester, chunks, digest_of
from .index import REF_NAME
from .manifests import INDEX_TYPES, Descriptor, Manifest, ManifestError
from .tarstream import Entry, TarReader

CONTAINERD_NAME = (
    "io.containerd.image.name"  # the full reference, where docker ≥ 25 and ctr write only the tag as ref.name
)
MAX_MEMBERS = 100_000


class ArchiveError(ValueError):
    """The file or directory holds no image that can be loaded."""


class Found(NamedTuple):
    """One image of an archive, its blobs already in the content store."""

    manifest: Descriptor
    references: tuple[str, ...]


class Source(Protocol):
    """Where an archive's files come from."""

    def document(self, name: str) -> bytes | None:
        """A small file, or None."""

    def store(self, name: str, content: ContentStore, descriptor: Descriptor) -> None:
        """Put a file into the content store as the blob it must be; raises ContentError."""


class _Staged(NamedTuple):
    path: Path
    digest: str
    size: int


class DirectorySource:
    """An OCI image layout on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def document(self, name: str) -> bytes | None:
        """See Source."""
        try:
            with (self._root / name).open("rb") as file:
                return _bounded(file.read(MAX_DOCUMENT + 1), name)
        except FileNotFoundError:
            return None

    def store(self, name: str, content: ContentStore, descriptor: Descriptor) -> None:
        """See Source."""
        try:
            with (self._root / name).open("rb") as file:
                content.write(chunks(file), digest=descriptor.digest, size=descriptor.size)
        except FileNotFoundError:
            raise ArchiveError(f"{name} is missing from {self._root}") from None


class TarSource:
    """A tar's regular files by name; links between them (docker-save has some) are followed by name."""

    def __init__(self, path: Path, staging: Path) -> None:
        self._staged: dict[str, _Staged] = {}
        self._links: dict[str, str] = {}
        with path.open("rb") as file:
            reader = TarReader(compression.open_plain(file))
            for count, entry in enumerate(reader):
                if count >= MAX_MEMBERS:
                    raise ArchiveError(f"{path} has more than {MAX_MEMBERS} members")
                self._take(entry, reader, staging / str(count))

    def _take(self, entry: Entry, reader: TarReader, path: Path) -> None:
        name = _normal(os.fsdecode(entry.name))
        if entry.type == tarstream.SYMLINK:
            self._links[name] = _normal(posixpath.join(posixpath.dirname(name), os.fsdecode(entry.link)))
        elif entry.type == tarstream.HARD_LINK:
            self._links[name] = _normal(os.fsdecode(entry.link))
        elif entry.type == tarstream.REGULAR:
            self._staged[name] = _stage(reader, path)

    def staged(self, name: str) -> _Staged | None:
        """A file by its name in the archive."""
        name = _normal(name)
        return self._staged.get(name) or self._staged.get(self._links.get(name, ""))

    def document(self, name: str) -> bytes | None:
        """See Source."""
        staged = self.staged(name)
        if staged is None:
            return None
        with staged.path.open("rb") as file:
            return _bounded(file.read(MAX_DOCUMENT + 1), name)

    def store(self, name: str, content: ContentStore, descriptor: Descriptor) -> None:
        """See Source."""
        staged = self.staged(name)
        if staged is None:
            if content.has(descriptor.digest):
                return  # adopted a moment ago under the same digest
            raise ArchiveError(f"{name} is missing from the archive")
        if (staged.digest, staged.size) != (descriptor.digest, descriptor.size):
            raise ContentError(
                f"{name} has digest {staged.digest} and {staged.size} bytes, "
                f"its descriptor says {descriptor.digest} and {descriptor.size}"
            )
        if staged.path.exists():
            content.adopt(staged.path, staged.digest)


class _DockerImage(msgspec.Struct, frozen=True):
    """One item of docker-save's manifest.json."""

    config: str = msgspec.field(name="Config")
    layers: list[str] = msgspec.field(name="Layers")
    repo_tags: list[str] | None = msgspec.field(default=None, name="RepoTags")


_LISTING = msgspec.json.Decoder(list[_DockerImage])


@contextmanager
def opened(path: Path, scratch: Path) -> Iterator[Source]:
    """The files of an OCI layout directory, or of a tar (plain, gzip or zstd). Raises ArchiveError, OSError."""
    if stat.S_ISDIR(path.stat().st_mode):
        yield DirectorySource(path)
        return
    with TemporaryDirectory(prefix="load-", dir=scratch) as staging:
        try:
            source = TarSource(path, Path(staging))
        except (tarstream.TarError, compression.CompressionError) as error:
            raise ArchiveError(f"{path} is not an image archive: {error}") from error
        yield source


def take_images(source: Source, content: ContentStore, *, name: str) -> list[Found]:
    """Bring every image of an archive that runs here into the content store.

    `name` is the repository for images that carry only a tag. Raises ArchiveError, ManifestError, ContentError.
    """
    if source.document("oci-layout") is not None:
        return list(_oci_images(source, content, name))
    listing = source.document("manifest.json")
    if listing is None or not isinstance(source, TarSource):
        raise ArchiveError(
            "neither an OCI image layout (oci-layout, index.json) nor a docker-save archive (manifest.json)"
        )
    try:
        images = _LISTING.decode(listing)
    except msgspec.DecodeError as error:
        raise ArchiveError(f"manifest.json is not docker-save's: {error}") from error
    return [_docker_image(source, content, image) for image in images]


def _oci_images(source: Source, content: ContentStore, name: str) -> Iterator[Found]:
    data = source.document("index.json")
    if data is None:
        raise ArchiveError("an OCI image layout without index.json")
    by_digest: dict[str, tuple[Descriptor, list[str]]] = {}
    for descriptor in manifests.decode_index(data).manifests:
        manifest = _store_manifest(source, content, descriptor)
        by_digest.setdefault(manifest.digest, (manifest, []))[1].extend(_references(descriptor, name))
    for manifest, references in by_digest.values():
        yield Found(manifest, tuple(references))


def _store_manifest(source: Source, content: ContentStore, descriptor: Descriptor, depth: int = 0) -> Descriptor:
    """Store a manifest with its config and layers; of an index, the manifest for this machine."""
    blob = _verified_document(source, descriptor)
    if descriptor.media_type in INDEX_TYPES and depth < 3:
        chosen = manifests.choose(manifests.decode_index(blob), manifests.host_platform())
        return _store_manifest(source, content, chosen, depth + 1)
    manifest = manifests.decode_manifest(blob)
    for needed in (manifest.config, *manifest.layers):
        source.store(_blob(needed), content, needed)
    source.store(_blob(descriptor), content, descriptor)
    return Descriptor(media_type=manifest.media_type, digest=descriptor.digest, size=descriptor.size)


def _verified_document(source: Source, descriptor: Descriptor) -> bytes:
    data = source.document(_blob(descriptor))
    if data is None:
        raise ArchiveError(f"{_blob(descriptor)} is missing from the archive")
    if digest_of(data) != descriptor.digest:
        raise ContentError(f"{_blob(descriptor)} has digest {digest_of(data)}")
    if len(data) != descriptor.size:
        raise ContentError(f"{_blob(descriptor)} has {len(data)} bytes, its descriptor says {descriptor.size}")
    return data


def _docker_image(source: TarSource, content: ContentStore, image: _DockerImage) -> Found:
    """docker-save has no OCI manifest; ours is a function of its config and layers, so loading twice gives one."""
    config = _take(source, content, image.config, manifests.OCI_CONFIG)
    layers = [_take(source, content, layer, manifests.OCI_LAYER) for layer in image.layers]
    if len(manifests.decode_config(content.read(config.digest)).rootfs.diff_ids) != len(layers):
        raise ManifestError(f"{image.config} names a different number of layers than manifest.json")
    data = msgspec.json.encode(Manifest(config=config, layers=layers))
    descriptor = Descriptor(media_type=manifests.OCI_MANIFEST, digest=content.add(data), size=len(data))
    return Found(descriptor, tuple(str(reference.parse(tag)) for tag in image.repo_tags or ()))


def _take(source: TarSource, content: ContentStore, name: str, media_type: str) -> Descriptor:
    staged = source.staged(name)
    if staged is None:
        raise ArchiveError(f"{name} is missing from the archive")
    descriptor = Descriptor(media_type=media_type, digest=staged.digest, size=staged.size)
    source.store(name, content, descriptor)
    if media_type == manifests.OCI_LAYER:
        with content.open(staged.digest) as blob:
            return msgspec.structs.replace(descriptor, media_type=media_type + compression.suffix(blob))
    return descriptor


def _references(descriptor: Descriptor, name: str) -> list[str]:
    """Canonical references a layout's descriptor carries; a bare tag belongs to the repository `name`."""
    full = descriptor.annotations.get(CONTAINERD_NAME)
    text = full or descriptor.annotations.get(REF_NAME)
    if not text:
        return []
    return [str(reference.parse(text if full or set(text) & set(":/") else f"{name}:{text}"))]


def _blob(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.replace(':', '/')}"


def _stage(reader: TarReader, path: Path) -> _Staged:
    seen = Digester()
    with path.open("wb") as file:
        for offset, data in reader.content():
            if offset != seen.size:
                raise ArchiveError("an image archive with sparse members")
            seen.update(data)
            file.write(data)
    return _Staged(path, seen.digest, seen.size)


def _normal(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > MAX_DOCUMENT:
        raise ArchiveError(f"{name} is larger than the {MAX_DOCUMENT} bytes a document may have")
    return data
