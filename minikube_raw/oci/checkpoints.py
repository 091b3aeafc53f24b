"""A container's checkpoint as an image: the archive is its only layer, and an annotation of its manifest says what it is.

So do containerd and CRI-O read them, and `buildah config --annotation` makes them. What is in the archive is the runtime's
business (runtime/restoring.py).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from . import single
from .compression import CompressionError
from .images import CHECKPOINT_MARKS, Image, ImageError, ImageStore

CONFIG = "config.dump"
_HINT = "give an archive that a kubelet's checkpoint API has made"


def take_in(store: ImageStore, path: Path, references: Iterable[str] = ()) -> Image:
    """Takes the archive of a checkpoint into a store as an image. Raises ImageError."""
    try:
        name = _container(path)
        return single.take_in(store, path, references, dict.fromkeys(CHECKPOINT_MARKS, name))
    except tarfile.ReadError as error:
        raise ImageError(f"{path} is no checkpoint of a container: it is no tar", _HINT) from error
    except (OSError, CompressionError, tarfile.TarError) as error:
        raise ImageError(f"taking in {path}: {error}", _HINT) from error


def _container(path: Path) -> str:
    """The name of the container that an archive is of."""
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.removeprefix("./") == CONFIG and (file := archive.extractfile(member)) is not None:
                return _name(path, file.read())
    raise ImageError(f"{path} is no checkpoint of a container: it has no {CONFIG}", _HINT)


def _name(path: Path, text: bytes) -> str:
    try:
        return str(json.loads(text)["name"] or "?")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ImageError(f"{path} is damaged: {CONFIG}: {error}", _HINT) from error
