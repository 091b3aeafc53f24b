"""Files made from objects: what a configMap, secret, downwardAPI or projected volume holds, and how it is written.

The payload is computed purely; writing is atomic as a kubelet's AtomicWriter does it: data lies in a directory of its
own, `..data` points to it, user-visible names point through `..data`, and a change swaps one symlink.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

import msgspec

from minikube_raw.api.core import DownwardAPIVolumeFile, KeyToPath, Pod, Volume
from minikube_raw.kubelet import downward, env

_DATA = "..data"


class PayloadError(Exception):
    """What a volume is made from is not there; the text goes into the FailedMount Event."""


class File(msgspec.Struct, frozen=True):
    """A file's bytes and mode."""

    data: bytes
    mode: int


Payload = dict[str, File]


class Sources(msgspec.Struct, frozen=True):
    """What payloads are made from."""

    referred: env.Referred
    at: downward.Addresses
    allocatable: Mapping[str, str] = {}


def is_projected(volume: Volume) -> bool:
    """Whether a volume's files are made from objects."""
    return any((volume.config_map, volume.secret, volume.downward_api, volume.projected))


def payload(pod: Pod, volume: Volume, sources: Sources) -> Payload:
    """Relative path → file. Raises PayloadError for a missing object or key that is not optional.

    A serviceAccountToken source gives no file: this API server issues no tokens (docs/limits.md).
    """
    if volume.config_map is not None:
        each = volume.config_map
        return _config_map(pod, each.name, each.items, each.default_mode, each.optional, sources)
    if volume.secret is not None:
        secret = volume.secret
        return _secret(pod, secret.secret_name, secret.items, secret.default_mode, secret.optional, sources)
    if volume.downward_api is not None:
        return _downward(pod, volume.downward_api.items, volume.downward_api.default_mode, sources)
    return _projected(pod, volume, sources)


def _projected(pod: Pod, volume: Volume, sources: Sources) -> Payload:
    files: Payload = {}
    if volume.projected is None:
        return files
    mode = volume.projected.default_mode
    for source in volume.projected.sources:
        if source.config_map is not None:
            wanted = source.config_map
            files |= _config_map(pod, wanted.name, wanted.items, mode, wanted.optional, sources)
        elif source.secret is not None:
            secret = source.secret
            files |= _secret(pod, secret.name, secret.items, mode, secret.optional, sources)
        elif source.downward_api is not None:
            files |= _downward(pod, source.downward_api.items, mode, sources)
    return files


def _config_map(
    pod: Pod, name: str, items: tuple[KeyToPath, ...], mode: int, optional: bool, sources: Sources
) -> Payload:
    found = sources.referred.config_maps.get(name)
    if found is None:
        return _missing(f'configmap "{name}" not found', optional)
    return _keys(env.files(found), items, mode, optional)


def _secret(pod: Pod, name: str, items: tuple[KeyToPath, ...], mode: int, optional: bool, sources: Sources) -> Payload:
    found = sources.referred.secrets.get(name)
    if found is None:
        return _missing(f'secret "{name}" not found', optional)
    return _keys(env.files(found), items, mode, optional)


def _missing(message: str, optional: bool) -> Payload:
    if optional:
        return {}
    raise PayloadError(message)


def _keys(data: Mapping[str, bytes], items: tuple[KeyToPath, ...], mode: int, optional: bool) -> Payload:
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files: Payload = {}
    for item in items:
        if item.key in data:
            files[_safe(item.path)] = File(data[item.key], mode if item.mode is None else item.mode)
        elif not optional:
            raise PayloadError(f"references non-existent config key: {item.key}")
    return files


def _downward(pod: Pod, items: Iterable[DownwardAPIVolumeFile], mode: int, sources: Sources) -> Payload:
    files: Payload = {}
    for item in items:
        if item.field_ref is not None:
            text = downward.field(pod, item.field_ref.field_path, sources.at)
        elif item.resource_field_ref is not None:
            text = downward.resource_field(pod, item.resource_field_ref, None, sources.allocatable)
        else:
            continue
        files[_safe(item.path)] = File(text.encode(), mode if item.mode is None else item.mode)
    return files


def _safe(path: str) -> str:
    """A path that stays inside the volume."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise PayloadError(f"invalid path {path!r}: must be relative and must not contain '..'")
    return str(PurePosixPath(path))


def write(root: Path, files: Payload, *, group: int | None = None, now: Callable[[], float] = time.time) -> bool:
    """Make `root` show exactly these files; False when it does. Readers see all of the old or all of the new."""
    if _shows(root, files):
        return False
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime(now()))
    fresh = Path(tempfile.mkdtemp(prefix=stamp, dir=root))
    fresh.chmod(0o755 if group is None else 0o2755)
    for path, file in files.items():
        _write_file(fresh / path, file, group)
    old = os.readlink(root / _DATA) if (root / _DATA).is_symlink() else None
    _replace_symlink(root / _DATA, fresh.name)
    _link_names(root, files)
    if old is not None:
        shutil.rmtree(root / old, ignore_errors=True)
    if group is not None:
        _give_to_group(root, group)
    return True


def _give_to_group(root: Path, group: int) -> None:
    for directory, names, files in os.walk(root):
        for name in (".", *names, *files):
            os.chown(os.path.join(directory, name), -1, group, follow_symlinks=False)


def _write_file(path: Path, file: File, group: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.data)
    # fsGroup: what the owner may read, the group may too.
    path.chmod(file.mode if group is None else file.mode | (file.mode & 0o400) >> 3)


def _shows(root: Path, files: Payload) -> bool:
    data = root / _DATA
    if not data.is_symlink():
        return False
    present = {str(path.relative_to(data)): path for path in data.rglob("*") if path.is_file()}
    return present.keys() == files.keys() and all(present[name].read_bytes() == files[name].data for name in files)


def _link_names(root: Path, files: Payload) -> None:
    wanted = {PurePosixPath(path).parts[0] for path in files}
    for entry in root.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
    for name in wanted:
        if not (root / name).is_symlink():
            os.symlink(f"{_DATA}/{name}", root / name)


def _replace_symlink(path: Path, target: str) -> None:
    temporary = path.with_name(f"{path.name}_tmp")
    temporary.unlink(missing_ok=True)
    os.symlink(target, temporary)
    os.rename(temporary, path)
