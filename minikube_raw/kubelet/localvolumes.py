"""This node's half of the provisioner in the box: a directory for each volume that is to be here, and no data after one that goes.

The master makes and deletes the PersistentVolume objects; the node follows those that carry its name. Data is put aside before
the finalizer goes that keeps the object, so whatever dies in between, the next look removes what is left. Mounting is `volumes`' business.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from pathlib import Path

from minikube_raw.api.status import StatusError
from minikube_raw.api.storage import LOCAL_DATA, LOCAL_NODE, PV_PROTECTION, PersistentVolume
from minikube_raw.client.clock import Clock
from minikube_raw.client.events import WARNING, EventRecorder, reference
from minikube_raw.client.informer import Informer
from minikube_raw.client.resources import PERSISTENT_VOLUMES
from minikube_raw.client.rest import Client
from minikube_raw.client.workqueue import WorkQueue
from minikube_raw.linux import removal
from minikube_raw.runtime.emptying import Emptying

log = logging.getLogger(__name__)
# Whoever gets the volume may write to it: who may get it is decided by the claim.
_MODE = 0o777
_TRASH = ".removed"
_RETRY_SECONDS, _RETRY_MAX_SECONDS = 0.2, 60.0


class LocalVolumes:
    """Follows the volumes below `root`; `run` until cancelled."""

    def __init__(self, client: Client, node: str, root: Path, recorder: EventRecorder, clock: Clock) -> None:
        self._client = client
        self._root = root
        self._recorder = recorder
        self._emptying = Emptying(str(root / _TRASH))
        self._volumes = Informer(client, PERSISTENT_VOLUMES, label_selector=f"{LOCAL_NODE}={node}", clock=clock)
        self._queue = WorkQueue(clock=clock, base_delay=_RETRY_SECONDS, max_delay=_RETRY_MAX_SECONDS)
        self._volumes.add_handler(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._volumes.run())
            self._emptying.begin()  # what was put aside before a crash
            while True:
                name = await self._queue.get()
                try:
                    await self._sync(name)
                except (OSError, StatusError) as error:
                    log.warning("volume %s: %s", name, error)
                    self._tell(name, error)
                    self._queue.add_rate_limited(name)
                else:
                    self._queue.forget(name)
                finally:
                    self._queue.done(name)

    async def _sync(self, name: str) -> None:
        volume = self._volumes.get(name)
        if volume is None:
            return
        metadata = volume.metadata
        if metadata.deletion_timestamp is None:
            make_directory(self._root, name)
        elif LOCAL_DATA in metadata.finalizers and PV_PROTECTION not in metadata.finalizers:
            if volume.spec.persistent_volume_reclaim_policy == "Delete":
                await asyncio.to_thread(put_aside, self._root, name)
                self._emptying.begin()
            await self._let_go(volume)

    async def _let_go(self, volume: PersistentVolume) -> None:
        metadata = volume.metadata
        kept = [name for name in metadata.finalizers if name != LOCAL_DATA]
        same = {"uid": metadata.uid, "resourceVersion": metadata.resource_version}
        try:
            await self._client.patch(PERSISTENT_VOLUMES, metadata.name, {"metadata": {**same, "finalizers": kept}})
        except StatusError as error:
            if error.code != 404:
                raise

    def _tell(self, name: str, error: Exception) -> None:
        volume = self._volumes.get(name)
        if volume is not None and isinstance(error, OSError):
            reason = "VolumeFailedDelete" if volume.metadata.deletion_timestamp is not None else "ProvisioningFailed"
            self._recorder.event(reference(PERSISTENT_VOLUMES, volume), WARNING, reason, str(error))

    def _changed(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if new is not None:
            self._queue.add(new.metadata.name)


def make_directory(root: Path, name: str) -> None:
    """Make a volume's directory; one that is there is left alone, with whatever is in it."""
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    path = root / name
    if not path.is_dir():
        path.mkdir()
        path.chmod(_MODE)


def put_aside(root: Path, name: str) -> None:
    """Take a volume's data out of reach, to be deleted in the background; nothing there is fine. Raises OSError."""
    path = root / name
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise NotADirectoryError(errno.ENOTDIR, "what lies in the volume's place is no directory", str(path))
    removal.put_aside(str(path), str(root / _TRASH))
