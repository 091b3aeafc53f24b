"""The links that log collectors follow: /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log to a log below /var/log/pods.

Level-triggered: `follow` is told a pod's containers and makes the links what they should be. They are made only where
/var/log/pods is this node's own directory of logs, as it is on the machines of a cluster; elsewhere it is somebody else's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from minikube_raw.kubelet import convert
from minikube_raw.runtime.cri import ContainerStatus

VAR_LOG = Path("/var/log")
_LONGEST_NAME = 255  # of a file, on most file systems
_SUFFIX = ".log"


class LogLinks:
    """All links of one node, by pod uid. Without directories (None) it makes none."""

    def __init__(self, logs_dir: Path | None = None, var_log: Path = VAR_LOG) -> None:
        self._logs_dir = logs_dir
        self._seen = var_log / "pods"
        self._links = var_log / "containers"
        self._made: dict[str, dict[str, str]] = {}
        if logs_dir is not None and _same(logs_dir, self._seen):
            self._links.mkdir(mode=0o755, exist_ok=True)
            self._read()
        else:
            self._logs_dir = None

    def follow(self, uid: str, containers: Iterable[ContainerStatus]) -> None:
        """Make the pod's links those of its containers that have run."""
        if self._logs_dir is None:
            return
        wanted = {_name(each): self._target(each) for each in containers if each.started_at}
        made = self._made.setdefault(uid, {})
        for name in made.keys() - wanted.keys():
            (self._links / name).unlink(missing_ok=True)
            del made[name]
        for name, target in wanted.items():
            if made.get(name) != target:
                _link(self._links / name, target)
                made[name] = target
        if not made:
            del self._made[uid]

    def sweep(self, pods: Collection[str]) -> None:
        """Remove the links of all but these pods (uids): nobody else will follow them."""
        for uid in self._made.keys() - set(pods):
            self.follow(uid, ())

    def _target(self, container: ContainerStatus) -> str:
        assert self._logs_dir is not None
        return str(self._seen / os.path.relpath(container.log_path, self._logs_dir))

    def _read(self) -> None:
        """What a kubelet before us has made; /var/log/pods/NAMESPACE_NAME_UID/… tells whose it is."""
        for entry in os.scandir(self._links):
            if entry.is_symlink() and (target := os.readlink(entry.path)).startswith(f"{self._seen}/"):
                uid = target.removeprefix(f"{self._seen}/").partition("/")[0].rpartition("_")[2]
                self._made.setdefault(uid, {})[entry.name] = target


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False


def _name(container: ContainerStatus) -> str:
    """As kuberuntime's logSymlink has it."""
    labels = container.labels
    pod = f"{labels.get(convert.POD_NAME, '')}_{labels.get(convert.POD_NAMESPACE, '')}"
    return f"{pod}_{container.name}-{container.id}"[: _LONGEST_NAME - len(_SUFFIX)] + _SUFFIX


def _link(path: Path, target: str) -> None:
    """Make or replace a link; whoever looks sees the old one or the new one."""
    with suppress(FileExistsError):
        path.symlink_to(target)
        return
    new = path.with_name(f".{path.name[-200:]}")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(path)
