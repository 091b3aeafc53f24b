"""The documents of an image: index, manifest, config (OCI image spec 1.1), and their Docker spellings.

Only what we act on is decoded; the bytes themselves stay in the content store, so nothing is lost. Platform choice is
here because an index is the only place that needs it.
"""

from __future__ import annotations

import platform
from typing import Any, TypeVar

import msgspec

from .reference import is_digest

Document = TypeVar("Document")

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
MAX_LAYERS = 500  # overlayfs' OVL_MAX_STACK

# https://github.com/opencontainers/image-spec/blob/main/image-index.md: platform names are Go's.
GOARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


class ManifestError(ValueError):
    """A document that is no index, manifest or config, or one that contradicts itself."""


class Platform(msgspec.Struct, frozen=True):
    """What an image of an index runs on."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Names a blob: type, digest, size, and what an index adds."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}
    platform: Platform | None = None

    def __post_init__(self) -> None:
        if not is_digest(self.digest):
            raise ValueError(f"not a sha256 digest: {self.digest[:100]!r}")
        if self.size < 0:
            raise ValueError(f"negative size of {self.digest}")


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """An OCI index or Docker manifest list."""

    manifests: list[Descriptor]
    schema_version: int = 2
    media_type: str = OCI_INDEX


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One image for one platform: its config and its layers, lowest first."""

    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = 2
    media_type: str = OCI_MANIFEST
    annotations: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET


class ImageConfig(msgspec.Struct, frozen=True):
    """How a container of the image runs unless the pod says otherwise. Field names are ours; the wire has Docker's."""

    entrypoint: tuple[str, ...] = msgspec.field(default=(), name="Entrypoint")
    cmd: tuple[str, ...] = msgspec.field(default=(), name="Cmd")
    env: tuple[str, ...] = msgspec.field(default=(), name="Env")
    working_dir: str = msgspec.field(default="", name="WorkingDir")
    user: str = msgspec.field(default="", name="User")
    stop_signal: str = msgspec.field(default="", name="StopSignal")
    exposed_ports: tuple[str, ...] = msgspec.field(default=(), name="ExposedPorts")
    labels: dict[str, str] = msgspec.field(default={}, name="Labels")
    volumes: tuple[str, ...] = msgspec.field(default=(), name="Volumes")


class RootFS(msgspec.Struct, frozen=True):
    """Digests of the uncompressed layers, lowest first."""

    diff_ids: list[str]
    type: str = "layers"

    def __post_init__(self) -> None:
        for diff_id in self.diff_ids:
            if not is_digest(diff_id):
                raise ValueError(f"not a sha256 digest: {diff_id[:100]!r}")


class ConfigDocument(msgspec.Struct, frozen=True):
    """The config blob."""

    rootfs: RootFS
    architecture: str = ""
    os: str = ""
    created: str = ""
    config: ImageConfig = ImageConfig()


# Made while one thread imports this: msgspec does not lock what it prepares for a type at its first use (msgspec 0.22 segfaults),
# and a node reads its first images in several threads at once.
_INDEX = msgspec.json.Decoder(Index)
_MANIFEST = msgspec.json.Decoder(Manifest)
_OBJECT = msgspec.json.Decoder(dict[str, Any])
msgspec.json.Decoder(ConfigDocument)  # what it prepares convert() uses


def decode_index(data: bytes) -> Index:
    """Raises ManifestError."""
    return _decode(data, _INDEX, "index")


def decode_manifest(data: bytes) -> Manifest:
    """Raises ManifestError; also for more layers than overlayfs can stack."""
    manifest = _decode(data, _MANIFEST, "manifest")
    if len(manifest.layers) > MAX_LAYERS:
        raise ManifestError(f"an image of {len(manifest.layers)} layers; overlayfs stacks at most {MAX_LAYERS}")
    return manifest


def decode_config(data: bytes) -> ConfigDocument:
    """Raises ManifestError. Sets written as {"80/tcp": {}} become sorted tuples; null means absent."""
    document = _decode(data, _OBJECT, "image config")
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise ManifestError("the image config's config is no object")
    config = {key: value for key, value in config.items() if value is not None}
    for key in ("ExposedPorts", "Volumes"):
        if isinstance(config.get(key), dict):
            config[key] = sorted(config[key])
    try:
        return msgspec.convert({**_without_null(document), "config": config}, ConfigDocument)
    except msgspec.ValidationError as error:
        raise ManifestError(f"not an image config: {error}") from error


def encode_config(config: ImageConfig) -> dict[str, Any]:
    """The config blob's `config` object: only what is set, sets written as Docker writes them."""
    wire = {key: value for key, value in msgspec.to_builtins(config).items() if value}
    for key in ("ExposedPorts", "Volumes"):
        if key in wire:
            wire[key] = {item: {} for item in sorted(wire[key])}
    return wire


def host_platform() -> Platform:
    """What images must be built for to run here."""
    machine = platform.machine()
    return Platform(architecture=GOARCH.get(machine, machine), os="linux")


def choose(index: Index, wanted: Platform) -> Descriptor:
    """The manifest of an index that runs on `wanted`; one that names no platform counts as fitting, last.

    Raises ManifestError that lists what there is.
    """
    fitting = [d for d in index.manifests if d.platform and _fits(d.platform, wanted)]
    fitting += [d for d in index.manifests if d.platform is None]
    if not fitting:
        offered = sorted({f"{d.platform.os}/{d.platform.architecture}" for d in index.manifests if d.platform})
        raise ManifestError(f"no image for {wanted.os}/{wanted.architecture}; there is {', '.join(offered) or 'none'}")
    return fitting[0]


def _fits(offered: Platform, wanted: Platform) -> bool:
    return (offered.os, offered.architecture) == (wanted.os, wanted.architecture)


def _without_null(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}


def _decode(data: bytes, decoder: msgspec.json.Decoder[Document], what: str) -> Document:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ManifestError(f"not an image {what}: {error}") from error
