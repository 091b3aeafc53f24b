"""Volumes out of the box: a claim of our class becomes a directory of the node on which the scheduler put its first pod.

This half makes and deletes PersistentVolume objects, as any external provisioner does. The directory is the node's: its kubelet
makes it with the first mount, and removes it before it takes its finalizer from a volume that goes (`kubelet/localvolumes`).
A node that is gone has taken its data along; then the finalizer is taken away here.
"""

from __future__ import annotations

from typing import Any

from minikube_raw.api.core import Node
from minikube_raw.api.status import StatusError
from minikube_raw.api.storage import (
    LOCAL_DATA,
    LOCAL_NODE,
    LOCAL_PROVISIONER,
    LOCAL_VOLUMES,
    PROVISIONED_BY,
    PROVISIONER,
    PV_PROTECTION,
    SELECTED_NODE,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)
from minikube_raw.client.events import NORMAL, WARNING, reference
from minikube_raw.client.informer import key_of
from minikube_raw.client.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from minikube_raw.controllers.controller import Context, Controller
from minikube_raw.controllers.volumebinder import RESYNC_SECONDS
from minikube_raw.controllers.volumeprotection import release

_HOSTNAME = "kubernetes.io/hostname"
_MODES = {"ReadWriteOnce", "ReadWriteOncePod"}


class CannotProvision(Exception):
    """Why there is no volume for a claim; the text goes into its Event."""


class LocalProvisioner:
    """Makes and deletes volumes; `run` until cancelled. Keys are "namespace/claim" or "volume"."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._recorder = context.recorder(LOCAL_PROVISIONER)
        self._claims = context.informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = context.informers.of(PERSISTENT_VOLUMES)
        self._classes = context.informers.of(STORAGE_CLASSES)
        self._nodes = context.informers.of(NODES)
        self._controller = Controller("localprovisioner", self._reconcile, context, workers=5)
        self._claims.add_handler(self._claim_changed)
        self._volumes.add_handler(self._volume_changed)
        self._nodes.add_handler(self._node_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, key: str) -> float | None:
        if "/" in key:
            claim = self._claims.get(key)
            return await self._provision(claim) if claim is not None and _is_asked(claim) else None
        volume = self._volumes.get(key)
        if volume is not None and volume.metadata.annotations.get(PROVISIONED_BY) == LOCAL_PROVISIONER:
            await self._reclaim(volume)
        return None

    async def _provision(self, claim: PersistentVolumeClaim) -> float | None:
        storage_class = self._classes.get(claim.storage_class or "")
        if storage_class is None or storage_class.provisioner != LOCAL_PROVISIONER:
            return None
        about = reference(PERSISTENT_VOLUME_CLAIMS, claim)
        key, name = key_of(claim), f"pvc-{claim.metadata.uid}"
        try:
            body = wanted(claim, storage_class, self._nodes.get(claim.metadata.annotations.get(SELECTED_NODE, "")))
        except CannotProvision as error:
            text = f'failed to provision volume with StorageClass "{claim.storage_class}": {error}'
            self._recorder.event(about, WARNING, "ProvisioningFailed", text)
            await self._give_up_node(claim)
            return RESYNC_SECONDS
        text = f'External provisioner is provisioning volume for claim "{key}"'
        self._recorder.event(about, NORMAL, "Provisioning", text)
        try:
            await self._client.create(PERSISTENT_VOLUMES, body)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
            return None
        self._recorder.event(about, NORMAL, "ProvisioningSucceeded", f"Successfully provisioned volume {name}")
        return None

    async def _give_up_node(self, claim: PersistentVolumeClaim) -> None:
        """Let the scheduler choose again when the node it chose is gone."""
        node = claim.metadata.annotations.get(SELECTED_NODE)
        if node and self._nodes.get(node) is None:
            same = {"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version}
            body = {"metadata": {**same, "annotations": {SELECTED_NODE: None}}}
            await self._client.patch(PERSISTENT_VOLUME_CLAIMS, claim.metadata.name, body, claim.metadata.namespace)

    async def _reclaim(self, volume: PersistentVolume) -> None:
        metadata = volume.metadata
        if metadata.deletion_timestamp is None:
            if volume.status.phase == "Released" and volume.spec.persistent_volume_reclaim_policy == "Delete":
                await self._client.delete(PERSISTENT_VOLUMES, metadata.name, uid=metadata.uid)
        elif PV_PROTECTION not in metadata.finalizers and self._nodes.get(metadata.labels.get(LOCAL_NODE, "")) is None:
            await release(self._client, PERSISTENT_VOLUMES, metadata, LOCAL_DATA)

    def _claim_changed(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        if new is not None and _is_asked(new):
            self._controller.queue.add(key_of(new))

    def _volume_changed(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if new is not None and new.metadata.annotations.get(PROVISIONED_BY) == LOCAL_PROVISIONER:
            self._controller.queue.add(new.metadata.name)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None and old is not None:
            for name, volume in self._volumes.cache.items():
                if volume.metadata.labels.get(LOCAL_NODE) == old.metadata.name:
                    self._controller.queue.add(name)


def _is_asked(claim: PersistentVolumeClaim) -> bool:
    return claim.metadata.annotations.get(PROVISIONER) == LOCAL_PROVISIONER and not claim.spec.volume_name


def wanted(claim: PersistentVolumeClaim, storage_class: StorageClass, node: Node | None) -> dict[str, Any]:
    """Return the volume for a claim on a node. Raises CannotProvision."""
    _check(claim, node)
    assert node is not None
    root, hostname = node.metadata.annotations.get(LOCAL_VOLUMES, ""), node.metadata.labels.get(_HOSTNAME, "")
    if not root or not hostname:
        raise CannotProvision(f"node {node.metadata.name} does not say where it keeps volumes")
    name = f"pvc-{claim.metadata.uid}"
    here = {"matchExpressions": [{"key": _HOSTNAME, "operator": "In", "values": [hostname]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "labels": {LOCAL_NODE: node.metadata.name},
            "annotations": {PROVISIONED_BY: LOCAL_PROVISIONER},
            "finalizers": [LOCAL_DATA],
        },
        "spec": {
            "accessModes": claim.spec.access_modes,
            "capacity": {"storage": claim.spec.resources.requests.get("storage", "0")},
            "claimRef": reference(PERSISTENT_VOLUME_CLAIMS, claim),
            "local": {"path": f"{root}/{name}"},
            "mountOptions": storage_class.mount_options,
            "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}},
            "persistentVolumeReclaimPolicy": storage_class.reclaim_policy,
            "storageClassName": storage_class.metadata.name,
            "volumeMode": "Filesystem",
        },
    }


def _check(claim: PersistentVolumeClaim, node: Node | None) -> None:
    selected = claim.metadata.annotations.get(SELECTED_NODE)
    if not selected:
        raise CannotProvision(
            "no node was specified; the StorageClass must have volumeBindingMode WaitForFirstConsumer"
        )
    if node is None:
        raise CannotProvision(f'node "{selected}" not found')
    if claim.spec.selector is not None:
        raise CannotProvision("claim.Spec.Selector is not supported")
    if claim.spec.volume_mode != "Filesystem":
        raise CannotProvision(f"volume mode {claim.spec.volume_mode} is not supported")
    if refused := sorted(set(claim.spec.access_modes) - _MODES):
        raise CannotProvision(f"access mode {refused[0]} is not supported: a directory is of one node")
