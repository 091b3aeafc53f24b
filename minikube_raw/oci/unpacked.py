"""Layers unpacked once for all containers of the host: `l/NAME`, one directory per layer, read-only by convention.

NAME comes from the OCI chain id (the layer and all below it), because what a layer leaves unsaid (a missing parent
directory, a link on the way) its lower layers say. 26 characters, so that mount(2) takes 100 of them in its one page.
A directory appears under its name only when it is complete, checked against its diff_id, and on disk.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, cast

from minikube_raw.linux.durability import sync_file_system

from . import compression
from .content import ContentError, ContentStore, Digester
from .layers import LayerError, unpack_layer
from .locks import locked
from .manifests import Descriptor
from .rooted import is_opaque

NAME_LENGTH = 26
EMPTY = "empty"
RATIO = 200  # plain bytes per compressed byte …
RATIO_FLOOR = 1 << 30  # … once a layer is larger than this: small files of zeros are no attack
_log = logging.getLogger(__name__)


class UnpackedLayers:
    """The directory `l/` of an image store."""

    def __init__(self, root: Path, content: ContentStore) -> None:
        self._layers = root / "l"
        self._work = root / "work"
        self._locks = root / "locks"
        self._content = content

    def names(self, diff_ids: Sequence[str]) -> list[str]:
        """Directory names of a stack of layers, lowest first."""
        names, chain = [], ""
        for diff_id in diff_ids:
            chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest() if chain else diff_id
            names.append(base64.b32encode(bytes.fromhex(chain[7:])).decode().lower()[:NAME_LENGTH])
        return names

    def directories(self, layers: Sequence[Descriptor], diff_ids: Sequence[str]) -> list[Path]:
        """The stack as overlayfs takes it, uppermost first; what is missing is unpacked.

        Layers below one whose root is opaque are left out: overlayfs does not honour that mark on a layer's root.
        """
        stack: list[Path] = []
        for layer, diff_id, name in zip(layers, diff_ids, self.names(diff_ids), strict=True):
            directory = self._layers / name
            if not directory.is_dir():
                self._unpack(layer, diff_id, directory, stack)
            stack = [directory] if is_opaque(directory) else [directory, *stack]
        return stack or [self._empty()]

    def _empty(self) -> Path:
        """The one lower directory of an image without layers: overlayfs needs one."""
        directory = self._layers / EMPTY
        directory.mkdir(exist_ok=True)
        return directory

    def keep_only(self, names: Collection[str]) -> list[Path]:
        """Move every other layer to `work/` and return all that lies there, to be deleted. Nobody may be unpacking."""
        for name in os.listdir(self._layers):
            if name not in names and name != EMPTY:
                os.rename(self._layers / name, tempfile.mkdtemp(prefix="removed-", dir=self._work))
        return list(self._work.iterdir())

    def _unpack(self, layer: Descriptor, diff_id: str, directory: Path, lowers: Sequence[Path]) -> None:
        with locked(self._locks / f"unpack-{directory.name[0]}"):
            if directory.is_dir():
                return  # another process was quicker
            partial = Path(tempfile.mkdtemp(prefix="unpack-", dir=self._work))
            try:
                partial.chmod(0o755)
                left_out = self._unpack_verified(layer, diff_id, partial, lowers)
                sync_file_system(str(partial))
                os.rename(partial, directory)
            except BaseException:
                shutil.rmtree(partial)
                raise
        for line in left_out[:20]:
            _log.warning("layer %s: left out %s", layer.digest, line)

    def _unpack_verified(self, layer: Descriptor, diff_id: str, target: Path, lowers: Sequence[Path]) -> list[str]:
        with self._content.open(layer.digest) as blob:
            plain = _Measured(compression.open_plain(blob), layer)
            try:
                left_out = unpack_layer(io.BufferedReader(plain, 1 << 18), target, lowers=lowers)
            except LayerError as error:
                raise LayerError(f"layer {layer.digest}: {error}") from error
        if plain.seen.digest != diff_id:
            raise ContentError(f"layer {layer.digest} unpacks to {plain.seen.digest}, its config says {diff_id}")
        return left_out


class _Measured(io.RawIOBase):
    """A stream hashed as it passes, and cut off when it grows out of proportion to its compressed size."""

    def __init__(self, source: IO[bytes], layer: Descriptor) -> None:
        self._source = source
        self._limit = max(RATIO_FLOOR, RATIO * layer.size)
        self.seen = Digester()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = self._source.read(len(view))
        self.seen.update(data)
        if self.seen.size > self._limit:
            raise LayerError(f"unpacks to more than {self._limit} bytes, out of proportion to its compressed size")
        view[: len(data)] = data
        return len(data)
