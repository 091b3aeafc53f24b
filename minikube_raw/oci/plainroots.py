"""What is no image but named by a path: a directory (dir:/path) as it lies there, a tar (tar:/path) taken in as one layer,
a container's checkpoint (checkpoint:/path) taken in as checkpoints.py does.

For a host without a master, whose root may name any path: in a cluster such a reference would open a node's files to
whoever may create pods. A directory is only ever a lower layer: nothing is written to it, and it is not hashed or copied, so
what changes in it shows in containers that start later. A tar may also be an image archive; then it is loaded as one.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

from . import checkpoints, compression, manifests, reference, single
from .compression import CompressionError
from .images import Image, ImageError, ImageStore
from .manifests import ImageConfig

DIRECTORY, TAR, CHECKPOINT = "dir:", "tar:", "checkpoint:"
_ARCHIVE_MARKS = ("manifest.json", "oci-layout")
_ARCHIVE_NAMES = re.compile(r"(\./)?(blobs|index\.json|repositories|manifest\.json|oci-layout|[0-9a-f]{64}.*)(/.*)?")
Stamp = tuple[int, int, int, int] | None


def is_plain(text: str) -> bool:
    """Whether an image is named by a path."""
    return text.startswith((DIRECTORY, TAR, CHECKPOINT))


def name_of(text: str) -> str:
    """What an image is looked up by: a path as it is, else the canonical reference. Raises InvalidReference."""
    if not is_plain(text):
        return str(reference.parse(text))
    if not text.partition(":")[2].startswith("/"):
        raise reference.InvalidReference(f"{text}: give an absolute path")
    return text


class PlainRootStore(ImageStore):
    """An image store that also knows images by path."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._taken: dict[str, tuple[Stamp, str]] = {}  # tar's path → what it was when it was taken in, image id

    def resolve(self, text: str) -> Image | None:
        """See ImageStore. A tar that was not taken in yet, or has changed since, is not here."""
        if text.startswith(DIRECTORY):
            return _directory(text) if os.path.isdir(text[len(DIRECTORY) :]) else None
        if text.startswith((TAR, CHECKPOINT)):
            taken = self._taken.get(text)
            fresh = taken is not None and taken[0] == _stamp(text.partition(":")[2])
            return super().resolve(taken[1]) if taken is not None and fresh else None
        return super().resolve(text)

    def layers(self, image: Image) -> list[Path]:
        """See ImageStore. Raises ImageError for a directory that holds this store: overlayfs cannot have both."""
        if not image.id.startswith(DIRECTORY):
            return super().layers(image)
        path = Path(image.id[len(DIRECTORY) :]).resolve()
        if self.root.resolve().is_relative_to(path):
            raise ImageError(f"{path} holds the state of this installation", "name a directory that does not")
        return [path]

    def take_in(self, text: str) -> Image:
        """The image of a path, which is there: what is no directory is copied and unpacked unless that was done. Raises ImageError."""
        path = text.partition(":")[2]
        if text.startswith(DIRECTORY):
            image = self.resolve(text)
            if image is None:
                raise ImageError(f"{path} is not a directory", "name the root of a file system")
            return image
        try:
            stamp = _stamp(path)
            if text.startswith(CHECKPOINT):
                image = checkpoints.take_in(self, Path(path))
            elif _is_archive(Path(path)):
                image = self._loaded(Path(path))
            else:
                image = single.take_in(self, Path(path))
        except (OSError, CompressionError, tarfile.TarError) as error:
            raise ImageError(f"taking in {path}: {error}", "give a tar of a root file system") from error
        self._taken[text] = (stamp, image.id)
        return image

    def _loaded(self, path: Path) -> Image:
        image = super().resolve(self.load(path)[0])
        if image is None:
            raise ImageError(f"{path} holds no image for this machine")
        return image


def _directory(text: str) -> Image:
    return Image(text, text, (), ImageConfig(), 0, "", manifests.host_platform().architecture, (), ())


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _is_archive(path: Path) -> bool:
    """Whether a tar is an image archive; the first name that no archive has decides."""
    with path.open("rb") as blob, tarfile.open(fileobj=compression.open_plain(blob), mode="r|") as tar:
        return _has_marks(member.name for member in tar)


def _has_marks(names: Iterable[str]) -> bool:
    for name in names:
        if name.removeprefix("./") in _ARCHIVE_MARKS:
            return True
        if name != "." and not _ARCHIVE_NAMES.fullmatch(name):
            return False
    return False
