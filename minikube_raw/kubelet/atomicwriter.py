"""Files made from objects, written so that readers see all of the old or all of the new, as a kubelet's AtomicWriter does it.

Data lies in a directory of its own, `..data` points to it, the names that users see point through `..data`, and a change
swaps that one link. Whatever a crash left half done is put right by the next call.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import msgspec

from minikube_raw.linux.tree_owners import mode_for_group

_DATA = "..data"
_REGULAR, _DIRECTORY = 0o100000, 0o040755


class File(msgspec.Struct, frozen=True):
    """A file's bytes and mode, and its owner if that is not root."""

    data: bytes
    mode: int
    owner: int | None = None


Payload = dict[str, File]


def write(root: Path, files: Payload, *, group: int | None = None, now: Callable[[], float] = time.time) -> bool:
    """Make `root` show exactly these files, owned by `group`; False when it does. Directories in `root` are left alone."""
    shown = _shown(root)
    changed = shown is None or not _holds(root / shown, files)
    if changed or shown is None:
        shown = _write_fresh(root, files, group, now())
        _link(root, _DATA, shown, -1, group)
    _tidy(root, shown, files, group)
    return changed


def _shown(root: Path) -> str | None:
    """The directory that `..data` points to."""
    try:
        return os.readlink(root / _DATA)
    except FileNotFoundError:
        return None


def _holds(data: Path, files: Payload) -> bool:
    present = {str(path.relative_to(data)): path for path in data.rglob("*") if path.is_file()}
    return present.keys() == files.keys() and all(present[name].read_bytes() == files[name].data for name in files)


def _write_fresh(root: Path, files: Payload, group: int | None, now: float) -> str:
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime(now))
    fresh = tempfile.mkdtemp(prefix=stamp, dir=root)
    try:
        _own(fresh, _DIRECTORY, -1, group)
        made = {fresh}
        for path, file in files.items():
            _make_parents(fresh, path, made, group)
            _write_file(f"{fresh}/{path}", file, group)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return os.path.basename(fresh)


def _make_parents(fresh: str, path: str, made: set[str], group: int | None) -> None:
    directory = fresh
    for part in PurePosixPath(path).parts[:-1]:
        directory = f"{directory}/{part}"
        if directory not in made:
            os.mkdir(directory)
            _own(directory, _DIRECTORY, -1, group)
            made.add(directory)


def _write_file(path: str, file: File, group: int | None) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(file.data)
        while view:
            view = view[os.write(opened, view) :]
        _own(opened, _REGULAR | file.mode, -1 if file.owner is None else file.owner, group)
    finally:
        os.close(opened)


def _own(path: str | int, mode: int, owner: int, group: int | None) -> None:
    if owner >= 0 or group is not None:
        os.chown(path, owner, -1 if group is None else group)
    os.chmod(path, mode & 0o7777 if group is None else mode_for_group(mode, readonly=True))


def _tidy(root: Path, shown: str, files: Payload, group: int | None) -> None:
    """Make the names users see, remove those that are no more, and the data of earlier times."""
    owners = {PurePosixPath(path).parts[0]: file.owner for path, file in files.items()}
    present = set(os.listdir(root))
    for name in present - owners.keys() - {_DATA, shown}:
        _remove(root / name)
    for name, owner in owners.items():
        if name not in present or not (root / name).is_symlink():
            _link(root, name, f"{_DATA}/{name}", -1 if owner is None else owner, group)


def _remove(path: Path) -> None:
    """Remove a link, or data that is not shown; any other directory is a place for a volume that is mounted inside."""
    if path.is_symlink():
        path.unlink()
    elif path.name.startswith("..") and path.is_dir():
        shutil.rmtree(path, ignore_errors=True)


def _link(root: Path, name: str, target: str, owner: int, group: int | None) -> None:
    """Put a link at its place at once, with its owners. Raises IsADirectoryError where a mount point has the name."""
    temporary = root / f"..{name}_tmp"
    temporary.unlink(missing_ok=True)
    os.symlink(target, temporary)
    if owner >= 0 or group is not None:
        os.chown(temporary, owner, -1 if group is None else group, follow_symlinks=False)
    os.rename(temporary, root / name)


def make_nested(root: Path, names: Iterable[str]) -> None:
    """Make the directories on which other volumes are mounted: a container sees this one read-only."""
    for name in names:
        os.makedirs(root / name, mode=0o750, exist_ok=True)
