"""Layers and image layouts made by hand, so that each of their statements can be falsified on its own."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class Tar:
    """A tar written entry by entry; every method returns the tar, so that a case is one expression."""

    def __init__(self) -> None:
        self.buffer = io.BytesIO()

    def add(self, name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "", **fields: Any) -> Tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(data)
        info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        for field, value in fields.items():
            setattr(info, field, value)
        self.buffer.write(info.tobuf(tarfile.PAX_FORMAT))
        self.buffer.write(data + b"\0" * (-len(data) % 512))
        return self

    def dir(self, name: str, **fields: Any) -> Tar:
        return self.add(name, tarfile.DIRTYPE, **fields)

    def symlink(self, name: str, target: str, **fields: Any) -> Tar:
        return self.add(name, tarfile.SYMTYPE, link=target, **fields)

    def hardlink(self, name: str, target: str) -> Tar:
        return self.add(name, tarfile.LNKTYPE, link=target)

    def raw(self, data: bytes) -> Tar:
        self.buffer.write(data)
        return self

    def bytes(self) -> bytes:
        return self.buffer.getvalue() + b"\0" * 1024


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An OCI image layout being written; what it says can be falsified piece by piece."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs/sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.descriptors: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.path(digest(data)).write_bytes(data)
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def path(self, blob_digest: str) -> Path:
        return self.root / "blobs" / blob_digest.replace(":", "/")

    def image(
        self,
        name: str | None,
        layers: Iterable[bytes],
        *,
        compress: Callable[[bytes], bytes] = gzip.compress,
        config: dict[str, Any] | None = None,
        diff_ids: list[str] | None = None,
        **descriptor: Any,
    ) -> Layout:
        plain = list(layers)
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest(layer) for layer in plain]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(json.dumps(document).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(compress(layer), "application/vnd.oci.image.layer.v1.tar+gzip") for layer in plain],
        }
        described = self.blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
        annotations = {"org.opencontainers.image.ref.name": name} if name else {}
        self.descriptors.append({**described, "annotations": annotations, **descriptor})
        return self.write()

    def write(self) -> Layout:
        (self.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.descriptors}))
        return self

    def tar(self, target: Path) -> Path:
        with tarfile.open(target, "w") as tar:
            for path in sorted(self.root.rglob("*"), reverse=True):  # documents after blobs, as hostile as order can be
                tar.add(path, path.relative_to(self.root).as_posix(), recursive=False)
        return target
