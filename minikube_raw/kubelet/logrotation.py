"""Keeps container logs within their size and number: the kubelet's ContainerLogManager.

The current file is renamed and the keeper told to open a new one; it goes on writing to the old one until it has, so no line is
lost or doubled. Older files are compressed, the oldest removed. Source: pkg/kubelet/logs/container_log_manager.go.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from minikube_raw.client.clock import Clock, sleep
from minikube_raw.kubelet import logfiles
from minikube_raw.runtime import cri

log = logging.getLogger(__name__)
MONITOR_SECONDS = 10.0  # containerLogMonitorInterval
_COMPRESSION = 6


class RotationPolicy(msgspec.Struct, frozen=True):
    """When a log is rotated (bytes), and how many files there may be of it, the current one among them."""

    max_size: int = 10 << 20
    max_files: int = 5


class LogRotation:
    """Looks at the logs of all running containers from time to time. `on_rotated(path, name)` is called at each renaming."""

    def __init__(
        self,
        runtime: cri.RuntimeService,
        policy: RotationPolicy,
        clock: Clock,
        on_rotated: Callable[[str, str], None],
    ) -> None:
        self._runtime = runtime
        self._policy = policy
        self._clock = clock
        self._on_rotated = on_rotated

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await sleep(self._clock, MONITOR_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Rotate every log that has grown too large. What fails is tried again at the next look."""
        for container in await self._runtime.list_containers():
            if container.state is cri.ContainerState.RUNNING and _size(container.log_path) > self._policy.max_size:
                try:
                    await self._rotate(container)
                except (OSError, cri.RuntimeServiceError) as error:
                    log.warning("the log %s could not be rotated: %s", container.log_path, error)

    async def _rotate(self, container: cri.ContainerStatus) -> None:
        path = container.log_path
        await asyncio.to_thread(tidy, path, self._policy.max_files)
        name = f"{path}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime(self._clock.now()))}"
        if os.path.exists(name) or os.path.exists(name + logfiles.COMPRESSED):
            return  # not twice within a second: names are their order
        os.rename(path, name)
        self._on_rotated(path, name)
        try:
            await self._runtime.reopen_container_log(container.id)
        except (OSError, cri.RuntimeServiceError):
            # Its keeper is away: output goes on into the same file, and the next keeper opens it by its usual name.
            with suppress(FileExistsError):
                os.link(name, path)
                os.unlink(name)
            raise


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def tidy(path: str, max_files: int) -> None:
    """Make room for one more rotated file: remove what crashes left and what is too old, compress the rest. Raises OSError."""
    for leftover in _leftovers(path):
        os.unlink(leftover)
    names = logfiles.rotated(path)
    too_many = max(0, len(names) - max(0, max_files - 2))  # beside the current file and the one it is about to become
    for old in names[:too_many]:
        os.unlink(old)
    for name in names[too_many:]:
        if not name.endswith(logfiles.COMPRESSED):
            _compress(name)


def _leftovers(path: str) -> list[str]:
    """Half-written compressed files, and files whose compressed form is complete."""
    directory, base = os.path.split(path)
    names = {entry.name for entry in os.scandir(directory) if entry.name.startswith(f"{base}.")}
    left = [name for name in names if name.endswith(logfiles.PARTIAL) or name + logfiles.COMPRESSED in names]
    return [os.path.join(directory, name) for name in left]


def _compress(name: str) -> None:
    partial = name + logfiles.PARTIAL
    try:
        with open(name, "rb") as source, gzip.open(partial, "wb", _COMPRESSION) as target:
            shutil.copyfileobj(source, target, logfiles.CHUNK)
        os.chmod(partial, stat.S_IMODE(os.stat(name).st_mode))
        os.rename(partial, name + logfiles.COMPRESSED)
    except OSError:  # a full disk: it stays as it is
        with suppress(FileNotFoundError):
            os.unlink(partial)
        return
    os.unlink(name)
