"""What a container leaves as its last words: a file of its own at terminationMessagePath, or the end of its log.

The file lies in the pod's directory, is writable by any user of the container and is read once the container has ended: by
descriptor, never through a link and never something other than a regular file, since whoever may write there may be hostile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet.logfiles import open_log, tail_offset
from minikube_raw.kubelet.podlogs import LogOptions, Renderer
from minikube_raw.kubelet.pods import all_containers, container
from minikube_raw.runtime import cri

MAX_BYTES = 4096
MAX_LOG_BYTES = 2048
MAX_LOG_LINES = 80
MAX_POD_BYTES = 12 << 10  # over all containers of a pod; each has an equal share


class TerminationMessages:
    """Files and texts of all containers of a node; `pod_dir` says where a pod's own directory is."""

    def __init__(self, pod_dir: Callable[[str], Path]) -> None:
        self._pod_dir = pod_dir

    def prepare(self, uid: str, wanted: Container, attempt: int) -> tuple[cri.Mount, ...]:
        """Make the file of one run, empty; returns what mounts it. Raises OSError."""
        if not wanted.termination_message_path:
            return ()
        path = self._path(uid, wanted.name, attempt)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            os.fchmod(descriptor, 0o666)
        finally:
            os.close(descriptor)
        return (cri.Mount(container_path=wanted.termination_message_path, host_path=str(path)),)

    def read(self, uid: str, wanted: Container, run: cri.ContainerStatus) -> str:
        """The message of a run that has ended; "" when there is none."""
        message = _last_bytes(self._path(uid, wanted.name, run.attempt))
        fall_back = wanted.termination_message_policy == "FallbackToLogsOnError" and run.exit_code != 0
        if not message and fall_back:
            message = _end_of_log(run.log_path)
        return message.decode(errors="replace")

    def forget(self, uid: str, name: str, attempt: int) -> None:
        """A run of which nothing is kept any more."""
        self._path(uid, name, attempt).unlink(missing_ok=True)

    def _path(self, uid: str, name: str, attempt: int) -> Path:
        return self._pod_dir(uid) / "containers" / name / str(attempt)


class LastWords:
    """The messages of one pod's runs, each read once and cut to its container's share of what a pod may say."""

    def __init__(self, messages: TerminationMessages) -> None:
        self._messages = messages
        self._read: dict[str, str] = {}

    def of(self, pod: Pod, runs: Iterable[cri.ContainerStatus]) -> Mapping[str, str]:
        """Messages by container id."""
        share = MAX_POD_BYTES // max(len(all_containers(pod)), 1)
        for each in runs:
            wanted = container(pod, each.name)
            if each.state is cri.ContainerState.EXITED and wanted is not None and each.id not in self._read:
                self._read[each.id] = self._messages.read(pod.metadata.uid, wanted, each)[:share]
        return self._read


def _last_bytes(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        return os.pread(descriptor, MAX_BYTES, max(status.st_size - MAX_BYTES, 0))
    finally:
        os.close(descriptor)


def _end_of_log(path: str) -> bytes:
    """The last 80 lines of what the container wrote to both streams, and of these the last 2 KiB."""
    file = open_log(path)
    if file is None:
        return b""
    with file:
        start, _ = tail_offset(file, MAX_LOG_LINES)
        file.seek(start)
        return Renderer(LogOptions()).render(file.read())[-MAX_LOG_BYTES:]
