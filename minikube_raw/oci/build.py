"""Builds an image from a Containerfile: FROM scratch or a local image, files copied in, configuration set.

The files come from the recipe's own directory or from packages installed on this host (`COPY --from=apt:PACKAGE`), so a
build needs no network and no container; RUN is therefore not among the instructions. All files become one uncompressed
layer; the same input gives the same digest (SOURCE_DATE_EPOCH dates it, 0 by default).
"""

from __future__ import annotations

import datetime
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, cast

import msgspec

from . import containerfile, filetree, manifests, mtree, packages
from .containerfile import ContainerfileError, Instruction
from .content import Digester
from .filetree import FileTree, Node
from .images import Image, ImageError, ImageNotFound, ImageStore
from .manifests import Descriptor, ImageConfig, Manifest
from .reference import InvalidReference
from .rooted import LowerLayers

NAMES = ("Containerfile", "Dockerfile")
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BuildError(ImageError):
    """A recipe cannot be built; the message names file, line and column."""


def build(recipe: Path, store: ImageStore, references: Iterable[str], base: Callable[[str], Image]) -> Image:
    """Build the Containerfile in the directory `recipe` and name the image `references` (canonical).

    `base` finds the image FROM names. Raises BuildError, ImageError.
    """
    file = _containerfile(recipe)
    try:
        with store.writing():
            steps = containerfile.parse(file.read_text())
            return _Build(recipe, store, steps[0], base).run(steps[1:], references)
    except ContainerfileError as error:
        raise BuildError(f"{file}: {error}", error.hint) from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{file} is not UTF-8 text: {error}") from error


class _Build:
    def __init__(self, recipe: Path, store: ImageStore, first: Instruction, base: Callable[[str], Image]) -> None:
        self._recipe = recipe
        self._store = store
        self._base = _find_base(first, base)
        self._config = self._base.config if self._base else ImageConfig(env=(DEFAULT_PATH,))
        self._tree = FileTree(LowerLayers(store.layers(self._base)) if self._base else None)
        self._empty = True
        self._epoch = _source_date_epoch()

    def run(self, steps: list[Instruction], references: Iterable[str]) -> Image:
        for step in steps:
            try:
                getattr(self, f"_{step.keyword.lower()}")(step)
            except packages.PackageMissing as error:
                raise step.error(str(error), error.hint) from error
            except (ValueError, OSError) as error:
                if isinstance(error, ContainerfileError):
                    raise
                raise step.error(f"{step.keyword}: {error}") from error
        return self._store.commit(self._write(), references)

    def _copy(self, step: Instruction) -> None:
        *sources, target = self._operands(step)
        excluded = step.flag_values("exclude")
        for source in sources:
            for relative, node in self._source(step, source):
                if not any(fnmatch(relative, pattern) for pattern in excluded):
                    self._put(step, self._destination(source, relative, target, len(sources)), node)

    def _add(self, step: Instruction) -> None:
        """ADD is COPY that also takes mtree specifications apart, as it would a tar."""
        *sources, target = self._operands(step)
        for source in sources:
            if not source.endswith(".mtree"):
                self._copy(step._replace(text=f"{source} {target}"))
                continue
            for path, node in mtree.read(self._inside(source)):
                self._put(step, posixpath.join(target, path), node)

    def _env(self, step: Instruction) -> None:
        new = dict(step.pairs())
        kept = [pair for pair in self._config.env if pair.partition("=")[0] not in new]
        self._set(env=(*kept, *(f"{key}={value}" for key, value in new.items())))

    def _label(self, step: Instruction) -> None:
        self._set(labels={**self._config.labels, **dict(step.pairs())})

    def _cmd(self, step: Instruction) -> None:
        self._set(cmd=step.command())

    def _entrypoint(self, step: Instruction) -> None:
        self._set(entrypoint=step.command(), cmd=())  # a new entrypoint voids the base's CMD

    def _workdir(self, step: Instruction) -> None:
        path = posixpath.normpath(posixpath.join(self._config.working_dir or "/", step.text))
        if not self._tree.is_directory(path):
            self._put(step, path, filetree.directory())
        self._set(working_dir=path)

    def _user(self, step: Instruction) -> None:
        self._set(user=step.text)

    def _stopsignal(self, step: Instruction) -> None:
        self._set(stop_signal=step.text)

    def _expose(self, step: Instruction) -> None:
        ports = {port if "/" in port else f"{port}/tcp" for port in step.words()}
        self._set(exposed_ports=tuple(sorted({*self._config.exposed_ports, *ports})))

    def _volume(self, step: Instruction) -> None:
        self._set(volumes=tuple(sorted({*self._config.volumes, *step.words()})))

    def _set(self, **changes: object) -> None:
        self._config = msgspec.structs.replace(self._config, **changes)

    def _put(self, step: Instruction, path: str, node: Node) -> None:
        if owner := step.flag("chown"):
            uid, _, gid = owner.partition(":")
            node = node._replace(uid=int(uid), gid=int(gid or uid))
        if mode := step.flag("chmod"):
            node = node._replace(mode=int(mode, 8))
        self._tree.put(path, node)
        self._empty = False

    def _operands(self, step: Instruction) -> list[str]:
        unknown = {key for key, _ in step.flags} - {"from", "chown", "chmod", "exclude"}
        if unknown:
            raise step.error(f"{step.keyword} has no flag --{sorted(unknown)[0]} here")
        operands = step.words()
        if len(operands) < 2:
            raise step.error(f"{step.keyword} takes at least one source and a destination")
        operands[-1] = _below(self._config.working_dir, operands[-1])
        return operands

    def _destination(self, source: str, relative: str, target: str, sources: int) -> str:
        """Where one file of a source goes: into the target if that is or must be a directory, else onto it."""
        if relative:
            return posixpath.join(target, relative)
        into = target.endswith("/") or sources > 1 or self._tree.is_directory(target)
        return posixpath.join(target, posixpath.basename(source)) if into else target

    def _source(self, step: Instruction, source: str) -> Iterator[tuple[str, Node]]:
        """(path relative to the source, or "" for a single file; node)."""
        origin = step.flag("from")
        if origin is None:
            return _disk_files(self._inside(source))
        kind, _, names = origin.partition(":")
        if kind == "apt":
            return _package_files(names.split(","), source)
        if kind == "apt-closure":
            package, *without = names.split(",-")
            return _package_files(packages.with_dependencies(package, without=without), source)
        raise step.error(f"--from={origin}: only apt:PACKAGE and apt-closure:PACKAGE are supported")

    def _inside(self, source: str) -> Path:
        path = (self._recipe / source.lstrip("/")).resolve()
        if not path.is_relative_to(self._recipe.resolve()):
            raise ValueError(f"{source} lies outside the recipe's directory")
        if not path.exists():
            raise ValueError(f"{source} is not in {self._recipe}")
        return path

    def _write(self) -> Descriptor:
        """Layer, config and manifest into the content store."""
        content = self._store.content
        layers, diff_ids = [], []
        if self._base:
            layers, diff_ids = list(self._base.layers), list(self._base.diff_ids)
        if not self._empty:
            layer = self._write_layer()
            layers.append(layer)
            diff_ids.append(layer.digest)
        config = msgspec.json.encode(self._document(diff_ids))
        manifest = msgspec.json.encode(
            Manifest(
                config=Descriptor(media_type=manifests.OCI_CONFIG, digest=content.add(config), size=len(config)),
                layers=layers,
            )
        )
        return Descriptor(media_type=manifests.OCI_MANIFEST, digest=content.add(manifest), size=len(manifest))

    def _write_layer(self) -> Descriptor:
        path = self._store.scratch_file("layer-")
        with path.open("wb") as file:
            hashed = _Hashed(file)
            self._tree.write_tar(cast(IO[bytes], hashed), mtime=self._epoch)
        self._store.content.adopt(path, hashed.seen.digest)
        return Descriptor(media_type=manifests.OCI_LAYER, digest=hashed.seen.digest, size=hashed.seen.size)

    def _document(self, diff_ids: list[str]) -> dict[str, object]:
        created = datetime.datetime.fromtimestamp(self._epoch, datetime.UTC)
        host = manifests.host_platform()
        return {
            "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "architecture": host.architecture,
            "os": host.os,
            "config": manifests.encode_config(self._config),
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }


class _Hashed:
    """A file for tarfile to write to, hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seen = Digester()

    def write(self, data: bytes) -> int:
        self.seen.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.seen.size


def _source_date_epoch() -> int:
    """https://reproducible-builds.org/specs/source-date-epoch/"""
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not text.isdigit() or len(text) > 11:
        raise BuildError(f"SOURCE_DATE_EPOCH is {text!r}, not seconds since 1970", "unset it, or set it to a number")
    return int(text)


def _containerfile(recipe: Path) -> Path:
    for name in NAMES:
        if (recipe / name).is_file():
            return recipe / name
    raise BuildError(f"{recipe} has no {' or '.join(NAMES)}")


def _find_base(step: Instruction, find: Callable[[str], Image]) -> Image | None:
    try:
        return None if step.text == "scratch" else find(step.text)
    except ImageNotFound as error:
        raise step.error(f"FROM: {error}", error.hint) from error
    except InvalidReference as error:
        raise step.error(f"FROM: {error}") from error


def _disk_files(path: Path) -> Iterator[tuple[str, Node]]:
    """A file, or all below a directory, modes made 0644/0755: a checkout's umask must not change a digest."""
    if not path.is_dir():
        yield "", _plain_mode(filetree.from_disk(path))
        return
    for below in sorted(path.rglob("*")):
        yield str(below.relative_to(path)), _plain_mode(filetree.from_disk(below))


def _plain_mode(node: Node) -> Node:
    return node._replace(mode=0o755 if node.mode & 0o100 else 0o644)


def _package_files(names: list[str], source: str) -> Iterator[tuple[str, Node]]:
    """What packages brought at or below `source`."""
    wanted = packages.canonical(source)
    found = False
    for name in names:
        for path in packages.files(name):
            if packages.canonical(path) == wanted and not os.path.isdir(path):
                yield "", filetree.from_disk(Path(path))
                return
            below = path if source == "/" else packages.canonical(path)
            if os.path.lexists(path) and (below + "/").startswith(wanted.rstrip("/") + "/"):
                found = True
                if relative := posixpath.relpath(below, wanted).removeprefix("."):
                    yield relative, filetree.from_disk(Path(path))
    if not found:
        raise ValueError(f"{', '.join(names)} brought no {source}")


def _below(working_dir: str, path: str) -> str:
    joined = posixpath.join(working_dir or "/", path)
    return joined + "/" if path in (".", "..") else joined
