"""subPath and subPathExpr: a part of a volume, made if it is missing, found again by the runtime through a descriptor.

The kubelet looks and makes; what is mounted is what the runtime finds when it opens the path beneath the volume
(RESOLVE_BENEATH), so links that a container swaps meanwhile lead nowhere else (CVE-2017-1002101, CVE-2021-30465).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

from minikube_raw.api.core import Container, VolumeMount
from minikube_raw.kubelet import env
from minikube_raw.linux import paths

_NAMES = re.compile(r"\$(?:\$|\(([^)]*)\))")


def asked(mount: VolumeMount, variables: Mapping[str, str]) -> str:
    """The path inside the volume, "" for all of it. Raises env.ConfigError in the kubelet's words."""
    path = mount.sub_path
    if mount.sub_path_expr:
        names = {name for name in _NAMES.findall(mount.sub_path_expr) if name and not variables.get(name)}
        if names:
            raise env.ConfigError(f"missing value for {', '.join(sorted(names))}")
        path = env.expand(mount.sub_path_expr, variables)
    if path.startswith("/"):
        raise env.ConfigError(f"error SubPath `{path}` must not be an absolute path")
    if ".." in path.split("/"):
        raise env.ConfigError(f"unable to provision SubPath `{path}`: must not contain '..'")
    return path


def prepare(volume: str, path: str, mount: VolumeMount, container: Container) -> None:
    """See that `path` is in the volume, as directories with the volume's mode if it is missing. Raises env.ConfigError.

    The message says no more, for what hinders may be a file of the node's that the pod's owner should not know of.
    """
    where = f'subPath for volumeMount "{mount.name}" of container "{container.name}"'
    root = os.open(volume, os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(paths.open_in_volume(root, volume, path))
    except FileNotFoundError:
        try:
            make_directories(root, volume, path, stat.S_IMODE(os.fstat(root).st_mode) & 0o777)
        except OSError as error:
            text = where.replace("subPath", "subPath directory", 1)
            raise env.ConfigError(f"failed to create {text}") from error
    except OSError as error:
        raise env.ConfigError(f"failed to prepare {where}") from error
    finally:
        os.close(root)


def make_directories(root: int, volume: str, path: str, mode: int) -> None:
    """Make the missing part of `path` beneath `root` (at `volume`), through no link in that part; existing links are followed inside."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    current = os.dup(root)
    try:
        done = ""
        for name in names:
            done = f"{done}/{name}" if done else name
            try:
                below = paths.open_in_volume(root, volume, done, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                below = _make_directory(current, name, mode)
            os.close(current)
            current = below
    finally:
        os.close(current)


def _make_directory(parent: int, name: str, mode: int) -> int:
    """Make one directory with exactly this mode (and the parent's setgid, which the kernel hands on)."""
    os.mkdir(name, mode, dir_fd=parent)
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    inherited = os.fstat(made).st_mode & stat.S_ISGID
    os.fchmod(made, mode | inherited)
    return made
