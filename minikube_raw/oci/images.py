"""The image store of one host: images by reference, digest or id, and their layers unpacked for overlayfs.

The directory is an OCI image layout (oci-layout, index.json, blobs/) with four more: `l/` unpacked layers, `leases/`
which containers use which image, `locks/`, and `work/` for whatever is not finished. Kubelets of several nodes and the
command line use it at the same time. Calls block (disk, locks): an event loop calls them in a thread.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from . import archives, manifests, reference
from .compression import CompressionError
from .content import BlobMissing, ContentError, ContentStore, atomic_file
from .index import REF_NAME, ImageIndex
from .layers import LayerError
from .leases import Leases
from .locks import locked
from .manifests import Descriptor, ImageConfig, Manifest, ManifestError
from .unpacked import UnpackedLayers

# A manifest with one of these is no root file system but a checkpoint of a container (containerd's word, CRI-O's).
CHECKPOINT_MARKS = ("org.criu.checkpoint.container.name", "io.kubernetes.cri-o.annotations.checkpoint.name")
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_log = logging.getLogger(__name__)


class ImageError(Exception):
    """Something about an image failed; `hint` is the cure, one line."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ImageNotFound(ImageError):
    """No image of that reference is in the store (the kubelet: ErrImagePull, or ErrImageNeverPull)."""

    def __init__(self, reference: str, hint: str = "") -> None:
        super().__init__(f"image {reference} is not in the image store", hint or "see `minikube-raw image list`")
        self.reference = reference


class ImageInUse(ImageError):
    """Containers run on the image."""


class Image(msgspec.Struct, frozen=True):
    """One image of the store. `id` is its config's digest, `digest` its manifest's; `size` counts compressed bytes.

    `checkpoint` is the name of the container that it is a checkpoint of, empty for a root file system.
    """

    id: str
    digest: str
    references: tuple[str, ...]
    config: ImageConfig
    size: int
    created: str
    architecture: str
    layers: tuple[Descriptor, ...]  # lowest first, as in the manifest
    diff_ids: tuple[str, ...]
    checkpoint: str = ""


class ImageStore:
    """See the module. Opening it makes the directory, readable by root only: layers carry set-uid programs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for directory in (root, *(root / name for name in ("l", "leases", "locks", "work"))):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (root / "oci-layout").exists():
            with atomic_file(root / "oci-layout", root / "work") as file:
                file.write(LAYOUT)
        self.content = ContentStore(root, root / "work")
        self.leases = Leases(root / "leases")
        self._index = ImageIndex(root, self.content, lock=root / "locks" / "index", scratch=root / "work")
        self._unpacked = UnpackedLayers(root, self.content)
        self._gc_lock = root / "locks" / "gc"
        self._decoded: dict[str, Image] = {}

    def resolve(self, text: str) -> Image | None:
        """The image a user's reference, an id or a manifest digest names, or None.

        Raises InvalidReference; ImageError when the image is there but damaged.
        """
        descriptor = self._find(text)
        return self._image(descriptor) if descriptor else None

    def layers(self, image: Image) -> list[Path]:
        """Directories of the image's layers for overlayfs, uppermost first; unpacked now if they were not yet.

        Raises ImageError; ImageNotFound if the image was removed since it was resolved.
        """
        with self.writing(), _explained(f"unpacking image {_name(image)}"):
            try:
                return self._unpacked.directories(image.layers, image.diff_ids)
            except BlobMissing:
                if self._find(image.digest) is None:
                    raise ImageNotFound(_name(image)) from None
                raise

    def load(self, path: Path) -> list[str]:
        """Load every image of an OCI layout (directory, tar) or docker-save tar. Returns their references, else ids.

        An image appears only when all its blobs are verified and its layers unpacked.

        Raises ImageError, InvalidReference.
        """
        try:
            with (
                self.writing(),
                _explained(f"loading images from {path}"),
                archives.opened(path, self.root / "work") as source,
            ):
                found = archives.take_images(source, self.content, name=_stem(path))
                images = [(self.commit(image.manifest, image.references).id, image.references) for image in found]
        except BaseException:
            self.sweep()  # blobs taken before the failure belong to nobody
            raise
        return [name for image_id, references in images for name in references or (image_id,)]

    def commit(self, manifest: Descriptor, references: Iterable[str]) -> Image:
        """Make an image whose blobs are stored visible under canonical references. Call it inside `writing()`."""
        image = self._decode(manifest.digest)
        with _explained(f"unpacking image {manifest.digest}"):
            self._unpacked.directories(image.layers, image.diff_ids)
        plain = Descriptor(media_type=manifest.media_type, digest=manifest.digest, size=manifest.size)
        named = [msgspec.structs.replace(plain, annotations={REF_NAME: name}) for name in references]
        self._index.change(lambda current: _with(current, named or [plain]))
        return self._image(plain)

    def tag(self, existing: str, new: str) -> Image:
        """Give an image a further reference, taking that reference from whichever image had it."""
        name = str(reference.parse(new))
        with self.writing():
            image = self.resolve(existing)
            if image is None:
                raise ImageNotFound(existing)
            size = self.content.size(image.digest)
            descriptor = Descriptor(media_type=manifests.OCI_MANIFEST, digest=image.digest, size=size)
            return self.commit(descriptor, [name])

    def remove(self, text: str, *, wait: bool = True) -> None:
        """Forget a reference (or, by id, an image with all of them) and delete what no image needs any more.

        Works on a damaged image too. Raises ImageNotFound, InvalidReference, ImageInUse; BlockingIOError when somebody is
        writing and the caller does not `wait`.
        """
        with locked(self._gc_lock, wait=wait):
            descriptor = self._find(text)
            if descriptor is None:
                raise ImageNotFound(text)
            names = self._names(descriptor.digest)
            gone = names if reference.is_digest(text) or not names else {descriptor.annotations[REF_NAME]}
            users = self.leases.users(descriptor.digest)
            if users and gone >= names:
                raise ImageInUse(
                    f"image {text} is in use by {len(users)} container(s): {', '.join(users[:3])}",
                    "delete the pods that use it first",
                )
            self._index.change(lambda current: _without(current, descriptor.digest, gone))
            garbage = self._collect()
        _delete(garbage)

    def sweep(self) -> bool:
        """Delete what crashes and failed loads left behind; False if somebody is writing, so that it must wait."""
        try:
            with locked(self._gc_lock, wait=False):
                garbage = self._collect()
        except BlockingIOError:
            return False
        _delete(garbage)
        return True

    def scratch_file(self, prefix: str) -> Path:
        """A new empty file on the store's file system. Call it inside `writing()`; what is left over is swept later."""
        fd, name = tempfile.mkstemp(prefix=prefix, dir=self.root / "work")
        os.close(fd)
        return Path(name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold off `remove` while blobs or layers exist that no index entry or lease mentions yet."""
        with locked(self._gc_lock, shared=True):
            yield

    def _collect(self) -> list[Path]:
        """Remove blobs and layers that neither the index nor a running container needs; the gc lock must be held.

        Returns what is left to delete without the lock: layers can be large, and containers want to start meanwhile.
        """
        digests = {descriptor.digest for descriptor in self._index.read()} | self.leases.images()
        blobs, chains = set[str](), set[str]()
        for digest in digests:
            with suppress(ImageError):  # what a damaged image once needed is of no use any more
                image = self._decode(digest)
                blobs |= {digest, image.id, *(layer.digest for layer in image.layers)}
                chains |= set(self._unpacked.names(image.diff_ids))
        for digest in self.content.digests():
            if digest not in blobs:
                self.content.remove(digest)
        self._decoded.clear()
        return self._unpacked.keep_only(chains)

    def _find(self, text: str) -> Descriptor | None:
        """The index entry of a reference, a manifest digest or an id. Raises InvalidReference."""
        if reference.is_digest(text):
            return next((d for d in self._index.read() if text == d.digest or text == self._id(d.digest)), None)
        wanted = reference.parse(text)
        return self._by_digest(wanted) if wanted.digest else self._index.find(str(wanted))

    def _by_digest(self, wanted: reference.Reference) -> Descriptor | None:
        """`name@digest`: an image of that digest that has a reference in the same repository."""
        for descriptor in self._index.read():
            name = descriptor.annotations.get(REF_NAME)
            if descriptor.digest == wanted.digest and name and reference.parse(name).name == wanted.name:
                return descriptor
        return None

    def _id(self, digest: str) -> str:
        """An image's id, or "" while it is damaged: that must not keep another from being found."""
        try:
            return self._decode(digest).id
        except ImageError:
            return ""

    def _names(self, digest: str) -> set[str]:
        names = (d.annotations.get(REF_NAME) for d in self._index.read() if d.digest == digest)
        return {name for name in names if name}

    def _image(self, descriptor: Descriptor) -> Image:
        image = self._decode(descriptor.digest)
        return msgspec.structs.replace(image, references=tuple(sorted(self._names(descriptor.digest))))

    def _decode(self, digest: str) -> Image:
        """The image behind a manifest digest, without references; remembered, since digests keep their meaning."""
        if digest not in self._decoded:
            with _explained(f"reading image {digest}"):
                manifest = manifests.decode_manifest(self.content.read(digest))
                self._decoded[digest] = _decoded(digest, manifest, self.content.read(manifest.config.digest))
        return self._decoded[digest]

    def list(self) -> list[Image]:
        """Every image that can be read, once, in the order of first references; a damaged one is logged."""
        found = []
        for descriptor in {descriptor.digest: descriptor for descriptor in reversed(self._index.read())}.values():
            try:
                found.append(self._image(descriptor))
            except ImageError as error:
                _log.warning("%s", error)
        return sorted(found, key=lambda image: (image.references or ("~",), image.id))


def _decoded(digest: str, manifest: Manifest, config_data: bytes) -> Image:
    document = manifests.decode_config(config_data)
    if len(document.rootfs.diff_ids) != len(manifest.layers):
        raise ManifestError(f"{len(manifest.layers)} layers but {len(document.rootfs.diff_ids)} diff_ids")
    return Image(
        id=manifest.config.digest,
        digest=digest,
        references=(),
        config=document.config,
        size=manifest.config.size + sum(layer.size for layer in manifest.layers),
        created=document.created,
        architecture=document.architecture,
        layers=tuple(manifest.layers),
        diff_ids=tuple(document.rootfs.diff_ids),
        checkpoint=_checkpoint(manifest.annotations or {}),
    )


def _checkpoint(annotations: Mapping[str, str]) -> str:
    return next((annotations[mark] or "?" for mark in CHECKPOINT_MARKS if mark in annotations), "")


_MADE_BY = (
    "archives are made by `docker save`, `podman save`, `skopeo copy … oci-archive:FILE` or `minikube-raw image save`"
)


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Translate the layers' errors below into one ImageError that says what failed."""
    try:
        yield
    except (ContentError, ManifestError, LayerError, CompressionError, archives.ArchiveError, OSError) as error:
        raise ImageError(f"{doing}: {error}", _MADE_BY if isinstance(error, archives.ArchiveError) else "") from error


def _with(current: list[Descriptor], new: list[Descriptor]) -> list[Descriptor]:
    """The index with `new` in it; a reference moves, and an image that lost its last one can still be found by id."""
    taken = {d.annotations[REF_NAME] for d in new if REF_NAME in d.annotations}
    moved = [d for d in current if d.annotations.get(REF_NAME) in taken]
    others = [d for d in current if d.annotations.get(REF_NAME) not in taken]
    named = [d for d in (*others, *new) if REF_NAME in d.annotations]
    digests = {d.digest for d in named}
    nameless = {d.digest: msgspec.structs.replace(d, annotations={}) for d in (*moved, *others, *new)}
    return named + [d for d in nameless.values() if d.digest not in digests]


def _without(current: list[Descriptor], digest: str, names: set[str]) -> list[Descriptor]:
    return [
        d for d in current if d.digest != digest or (REF_NAME in d.annotations and d.annotations[REF_NAME] not in names)
    ]


def _delete(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _name(image: Image) -> str:
    return image.references[0] if image.references else image.id


def _stem(path: Path) -> str:
    """A repository name from a file's: what an archive's bare tag belongs to."""
    return path.name.split(".")[0].lower() or "image"
