"""Writes images of the store to a tar that other tools load: oci-archive (an OCI layout) or docker-archive (docker-save).

The counterpart of `archives`. The same images give the same bytes: members sorted, no time stamps.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from typing import IO

import msgspec

from . import compression, manifests, reference
from .archives import CONTAINERD_NAME
from .content import CHUNK, ContentStore
from .images import LAYOUT, Image
from .index import REF_NAME
from .manifests import Descriptor, Index

FORMATS = ("oci-archive", "docker-archive")


def save(
    images: Sequence[Image], content: ContentStore, file: IO[bytes], *, archive_format: str = "oci-archive"
) -> None:
    """Write images with all their references to `file`. Raises BlobMissing, OSError."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if archive_format == "docker-archive":
            _docker_archive(images, content, tar)
        else:
            _oci_archive(images, content, tar)


def _oci_archive(images: Sequence[Image], content: ContentStore, tar: tarfile.TarFile) -> None:
    blobs = {image.digest for image in images} | {image.id for image in images}
    blobs |= {layer.digest for image in images for layer in image.layers}
    descriptors = [descriptor for image in images for descriptor in _descriptors(image, content)]
    _add(tar, "oci-layout", LAYOUT)
    _add(tar, "index.json", msgspec.json.encode(Index(manifests=descriptors)))
    for digest in sorted(blobs):
        with content.open(digest) as blob:
            _add_stream(tar, f"blobs/sha256/{digest.removeprefix('sha256:')}", blob, content.size(digest))


def _descriptors(image: Image, content: ContentStore) -> list[Descriptor]:
    plain = Descriptor(
        media_type=manifests.decode_manifest(content.read(image.digest)).media_type,
        digest=image.digest,
        size=content.size(image.digest),
    )
    names = [{REF_NAME: name, CONTAINERD_NAME: name} for name in image.references]
    return [msgspec.structs.replace(plain, annotations=annotations) for annotations in names or [{}]]


def _docker_archive(images: Sequence[Image], content: ContentStore, tar: tarfile.TarFile) -> None:
    """Layers go in uncompressed, named by their diff_id, as docker itself writes them."""
    listing = []
    written = set[str]()
    for image in images:
        config = f"{image.id.removeprefix('sha256:')}.json"
        layers = [f"{diff_id.removeprefix('sha256:')}/layer.tar" for diff_id in image.diff_ids]
        tags = [reference.parse(name).familiar for name in image.references if "@" not in name]
        listing.append({"Config": config, "RepoTags": tags, "Layers": layers})
        if config not in written:
            _add(tar, config, content.read(image.id))
        for name, layer in zip(layers, image.layers, strict=True):
            if name not in written:
                _add_plain(tar, name, layer.digest, content)
        written |= {config, *layers}
    _add(tar, "manifest.json", msgspec.json.encode(listing))


def _add_plain(tar: tarfile.TarFile, name: str, digest: str, content: ContentStore) -> None:
    """A layer decompressed on the way; a tar wants its size first, so the stream is read twice."""
    with content.open(digest) as blob:
        size = _length(compression.open_plain(blob))
    with content.open(digest) as blob:
        _add_stream(tar, name, compression.open_plain(blob), size)


def _length(stream: IO[bytes]) -> int:
    length = 0
    while data := stream.read(CHUNK):
        length += len(data)
    return length


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    _add_stream(tar, name, io.BytesIO(data), len(data))


def _add_stream(tar: tarfile.TarFile, name: str, stream: IO[bytes], size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    tar.addfile(info, stream)
