"""Claims that pods use and volumes that are bound do not go: their finalizers are taken away when nobody needs them any more.

A claim waits for every pod with a node that names it, also for one that has ended, until that pod is gone
(pkg/controller/volume/pvcprotection and pvprotection, v1.36). The finalizers themselves come with the objects' creation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.api.meta import ObjectMeta
from minikube_raw.api.status import StatusError
from minikube_raw.api.storage import PV_PROTECTION, PVC_PROTECTION, PersistentVolume, PersistentVolumeClaim
from minikube_raw.client.informer import key_of, split_key
from minikube_raw.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from minikube_raw.client.rest import Client, Resource
from minikube_raw.controllers.controller import Context, Controller

CLAIMS_INDEX = "claims"


def claims_of(pod: Pod) -> Iterable[str]:
    """Index: the keys of the claims a pod uses."""
    names = (volume.claim_name(pod.metadata.name) for volume in pod.spec.volumes)
    return [f"{pod.metadata.namespace}/{name}" for name in names if name]


class VolumeProtectionController:
    """Lets go of claims and volumes on their way out; `run` until cancelled. Keys are "namespace/claim" or "volume"."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._pods = context.informers.of(PODS)
        self._claims = context.informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = context.informers.of(PERSISTENT_VOLUMES)
        self._controller = Controller("volumeprotection", self._reconcile, context, workers=2)
        self._pods.add_index(CLAIMS_INDEX, claims_of)
        self._pods.add_handler(self._pod_changed)
        self._claims.add_handler(self._changed)
        self._volumes.add_handler(self._changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, key: str) -> float | None:
        if split_key(key)[0]:
            claim = self._claims.get(key)
            if claim is not None and not self._used(key):
                await release(self._client, PERSISTENT_VOLUME_CLAIMS, claim.metadata, PVC_PROTECTION)
        else:
            volume = self._volumes.get(key)
            if volume is not None and volume.status.phase != "Bound":
                await release(self._client, PERSISTENT_VOLUMES, volume.metadata, PV_PROTECTION)
        return None

    def _used(self, key: str) -> bool:
        # A pod without a node does not count: no kubelet starts it while its claim is being deleted.
        return any(pod.spec.node_name for pod in self._pods.by_index(CLAIMS_INDEX, key))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is None:
            for key in claims_of(old):
                self._controller.queue.add(key)

    def _changed(
        self, old: PersistentVolume | PersistentVolumeClaim | None, new: PersistentVolume | PersistentVolumeClaim | None
    ) -> None:
        if new is not None and new.metadata.deletion_timestamp is not None:
            self._controller.queue.add(key_of(new))


async def release(client: Client, resource: Resource[Any], metadata: ObjectMeta, finalizer: str) -> None:
    """Take a finalizer from an object that is being deleted; whatever changed meanwhile is a conflict (409)."""
    if metadata.deletion_timestamp is None or finalizer not in metadata.finalizers:
        return
    kept = [name for name in metadata.finalizers if name != finalizer]
    same = {"uid": metadata.uid, "resourceVersion": metadata.resource_version}
    try:
        await client.patch(resource, metadata.name, {"metadata": {**same, "finalizers": kept}}, metadata.namespace)
    except StatusError as error:
        if error.code != 404:
            raise
