"""Makes an image of one tar: its bytes become the only layer, with a config and a manifest written for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from . import compression, manifests
from .content import Digester, chunks
from .images import Image, ImageStore
from .manifests import Descriptor, ImageConfig, Manifest


def take_in(
    store: ImageStore, path: Path, references: Iterable[str] = (), annotations: Mapping[str, str] | None = None
) -> Image:
    """Takes a tar, plain or compressed, into a store. Raises ImageError, OSError, CompressionError.

    `annotations` are labels too: else one tar's images would have one id.
    """
    with store.writing():
        layer, diff_id = _store_layer(store, path)
        host, marks = manifests.host_platform(), dict(annotations or {})
        document = {
            "architecture": host.architecture,
            "os": host.os,
            "config": manifests.encode_config(ImageConfig(labels=marks)),
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        config = msgspec.json.encode(document)
        described = Descriptor(media_type=manifests.OCI_CONFIG, digest=store.content.add(config), size=len(config))
        manifest = msgspec.json.encode(Manifest(config=described, layers=[layer], annotations=marks or msgspec.UNSET))
        digest = store.content.add(manifest)
        return store.commit(
            Descriptor(media_type=manifests.OCI_MANIFEST, digest=digest, size=len(manifest)), references
        )


def _store_layer(store: ImageStore, path: Path) -> tuple[Descriptor, str]:
    """Copy the tar in; its descriptor, and the digest of what it decompresses to."""
    scratch, packed, plain = store.scratch_file("tar-"), Digester(), Digester()
    with path.open("rb") as source, scratch.open("wb") as copy:
        for chunk in chunks(source):
            packed.update(chunk)
            copy.write(chunk)
    with scratch.open("rb") as blob:
        for chunk in chunks(compression.open_plain(blob)):
            plain.update(chunk)
    store.content.adopt(scratch, packed.digest)
    layer = Descriptor(media_type=manifests.OCI_LAYER, digest=packed.digest, size=packed.size)
    return layer, plain.digest
