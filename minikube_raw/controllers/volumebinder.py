"""The binder: joins claims and PersistentVolumes, and says of each volume what has become of it.

A binding is written in four steps (volume, its phase, claim, its phase), each a patch of the version that was looked at; after
a crash the next look continues where the writing ended. Who makes volumes for claims and unmakes them stands elsewhere: here
a provisioner is only told (pkg/controller/volume/persistentvolume/pv_controller.go, v1.36).
"""

from __future__ import annotations

from typing import Any, TypeVar

from minikube_raw.api.core import ObjectReference
from minikube_raw.api.status import StatusError
from minikube_raw.api.storage import (
    BETA_PROVISIONER,
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    PROVISIONED_BY,
    PROVISIONER,
    SELECTED_NODE,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)
from minikube_raw.api.volumematching import find, is_bound_to, mismatch
from minikube_raw.client.events import NORMAL, WARNING, reference
from minikube_raw.client.informer import Object, key_of
from minikube_raw.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from minikube_raw.client.rest import Resource
from minikube_raw.controllers.controller import Context, Controller
from minikube_raw.controllers.volumeprotection import CLAIMS_INDEX, claims_of

V = TypeVar("V", PersistentVolume, PersistentVolumeClaim)
COMPONENT = "persistentvolume-controller"
# A claim that waits is looked at again so often, and says so in its Events (--pvclaimbinder-sync-period).
RESYNC_SECONDS = 15.0
_IN_TREE = "kubernetes.io/"
_LOST = "Bound claim has lost {}. Data on the volume is lost!"


class VolumeBinder:
    """Binds; `run` until cancelled. Keys are "namespace/claim" or "volume"."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._recorder = context.recorder(COMPONENT)
        self._claims = context.informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = context.informers.of(PERSISTENT_VOLUMES)
        self._classes = context.informers.of(STORAGE_CLASSES)
        self._pods = context.informers.of(PODS)
        self._pods.add_index(CLAIMS_INDEX, claims_of)
        # One worker: two claims must not be given the same volume.
        self._controller = Controller("volumebinder", self._reconcile, context, workers=1)
        self._claims.add_handler(self._claim_changed)
        self._volumes.add_handler(self._volume_changed)
        self._classes.add_handler(self._class_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, key: str) -> float | None:
        if "/" in key:
            claim = self._claims.get(key)
            return await self._sync_claim(claim) if claim is not None else None
        volume = self._volumes.get(key)
        if volume is not None:
            await self._sync_volume(volume)
        return None

    # --- claims ---

    async def _sync_claim(self, claim: PersistentVolumeClaim) -> float | None:
        if BIND_COMPLETED in claim.metadata.annotations:
            await self._sync_bound(claim)
            return None
        if claim.spec.volume_name:
            return await self._sync_named(claim)
        volume = find(claim, self._volumes.cache.values(), delayed=self._waits(claim))
        if volume is not None:
            await self._bind(volume, claim)
            return None
        return await self._sync_waiting(claim)

    def _class(self, claim: PersistentVolumeClaim) -> StorageClass | None:
        return self._classes.get(claim.storage_class or "")

    def _waits(self, claim: PersistentVolumeClaim) -> bool:
        found = self._class(claim)
        return found is not None and found.waits

    async def _sync_waiting(self, claim: PersistentVolumeClaim) -> float | None:
        """No volume is there for the claim: a default class, a provisioner, or patience."""
        if claim.storage_class is None and (default := self._default_class()):
            await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, spec={"storageClassName": default})
        elif self._waits(claim) and SELECTED_NODE not in claim.metadata.annotations:
            self._tell_who_is_awaited(claim)
        elif claim.storage_class:
            await self._ask_provisioner(claim)
        else:
            text = "no persistent volumes available for this claim and no storage class is set"
            self._event(claim, NORMAL, "FailedBinding", text)
        return RESYNC_SECONDS

    def _default_class(self) -> str:
        defaults = [each.metadata for each in self._classes.cache.values() if each.is_default]
        defaults.sort(key=lambda metadata: metadata.name)
        defaults.sort(key=lambda metadata: metadata.creation_timestamp or "", reverse=True)
        return defaults[0].name if defaults else ""

    def _tell_who_is_awaited(self, claim: PersistentVolumeClaim) -> None:
        pods = [pod for pod in self._pods.by_index(CLAIMS_INDEX, key_of(claim)) if not pod.spec.node_name]
        names = sorted(pod.metadata.name for pod in pods)
        if not names:
            text = "waiting for first consumer to be created before binding"
            self._event(claim, NORMAL, "WaitForFirstConsumer", text)
            return
        text = f"waiting for pod{'s' if len(names) > 1 else ''} {','.join(names)} to be scheduled"
        self._event(claim, NORMAL, "WaitForPodScheduled", text)

    async def _ask_provisioner(self, claim: PersistentVolumeClaim) -> None:
        found = self._class(claim)
        if found is None:
            text = f'storageclass.storage.k8s.io "{claim.storage_class}" not found'
            self._event(claim, WARNING, "ProvisioningFailed", text)
            return
        if found.provisioner.startswith(_IN_TREE):
            self._event(claim, WARNING, "ProvisioningFailed", "no volume plugin matched")
            return
        asked = {PROVISIONER: found.provisioner, BETA_PROVISIONER: found.provisioner}
        if not asked.items() <= claim.metadata.annotations.items():
            claim = await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, annotations=asked)
        text = (
            f"Waiting for a volume to be created either by the external provisioner '{found.provisioner}' or manually by "
            "the system administrator. If volume creation is delayed, please verify that the provisioner is running and "
            "correctly registered."
        )
        self._event(claim, NORMAL, "ExternalProvisioning", text)

    async def _sync_named(self, claim: PersistentVolumeClaim) -> float | None:
        """The claim names its volume, or the binding was begun."""
        volume = self._volumes.get(claim.spec.volume_name)
        if volume is None:
            return RESYNC_SECONDS
        if is_bound_to(volume, claim):
            await self._bind(volume, claim)
            return None
        if volume.spec.claim_ref is not None:
            text = f'volume "{volume.metadata.name}" already bound to a different claim.'
            self._event(claim, WARNING, "FailedBinding", text)
        elif why := mismatch(volume, claim):
            name = volume.metadata.name
            self._event(claim, WARNING, "VolumeMismatch", f'Cannot bind to requested volume "{name}": {why}')
        else:
            await self._bind(volume, claim)
            return None
        return RESYNC_SECONDS

    async def _sync_bound(self, claim: PersistentVolumeClaim) -> None:
        """The binding was complete once: it is, or the claim has lost its volume."""
        volume = self._volumes.get(claim.spec.volume_name)
        if not claim.spec.volume_name:
            await self._lose(claim, "ClaimLost", _LOST.format("reference to PersistentVolume"))
        elif volume is None:
            await self._lose(claim, "ClaimLost", _LOST.format("its PersistentVolume"))
        elif volume.spec.claim_ref is None or volume.spec.claim_ref.uid == claim.metadata.uid:
            await self._bind(volume, claim)
        else:
            text = "Two claims are bound to the same volume, this one is bound incorrectly"
            await self._lose(claim, "ClaimMisbound", text)

    async def _lose(self, claim: PersistentVolumeClaim, reason: str, message: str) -> None:
        if claim.status.phase != "Lost":
            await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, status={"phase": "Lost"})
            self._event(claim, WARNING, reason, message)

    # --- the binding ---

    async def _bind(self, volume: PersistentVolume, claim: PersistentVolumeClaim) -> None:
        """Write what is missing of the binding, the volume first."""
        name = volume.metadata.name
        reference_ = volume.spec.claim_ref
        if reference_ is None or reference_.uid != claim.metadata.uid:
            ours = {} if is_bound_to(volume, claim) else {BOUND_BY_CONTROLLER: "yes"}
            spec = {"claimRef": reference(PERSISTENT_VOLUME_CLAIMS, claim)}
            volume = await self._patch(PERSISTENT_VOLUMES, volume, annotations=ours, spec=spec)
        await self._set_phase(volume, "Bound")
        if claim.spec.volume_name != name or BIND_COMPLETED not in claim.metadata.annotations:
            notes = {BIND_COMPLETED: "yes"}
            if claim.spec.volume_name != name:
                notes[BOUND_BY_CONTROLLER] = "yes"
            claim = await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, annotations=notes, spec={"volumeName": name})
        if claim.status.phase != "Bound":
            status = {"phase": "Bound", "accessModes": volume.spec.access_modes, "capacity": volume.spec.capacity}
            await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, status=status)

    async def _unbind(self, volume: PersistentVolume) -> None:
        """Give a volume back whose claim was bound elsewhere; one that was kept for the claim stays kept, without its uid."""
        if BOUND_BY_CONTROLLER in volume.metadata.annotations:
            change: dict[str, Any] = {"annotations": {BOUND_BY_CONTROLLER: None}, "spec": {"claimRef": None}}
        else:
            change = {"spec": {"claimRef": {"uid": None}}}
        volume = await self._patch(PERSISTENT_VOLUMES, volume, **change)
        await self._set_phase(volume, "Available")

    # --- volumes ---

    async def _sync_volume(self, volume: PersistentVolume) -> None:
        owner = volume.spec.claim_ref
        if owner is None or not owner.uid:
            await self._set_phase(volume, "Available")
            return
        claim = self._claims.get(f"{owner.namespace}/{owner.name}")
        if claim is None or claim.metadata.uid != owner.uid:
            if await self._is_gone(owner):
                await self._release(volume)
        elif not claim.spec.volume_name:
            if claim.spec.volume_mode != volume.spec.volume_mode:
                self._tell_modes_differ(volume, claim)
            else:
                self._controller.queue.add(key_of(claim))
        elif claim.spec.volume_name == volume.metadata.name:
            await self._set_phase(volume, "Bound")
        elif PROVISIONED_BY in volume.metadata.annotations and volume.spec.persistent_volume_reclaim_policy == "Delete":
            await self._release(volume)
        else:
            await self._unbind(volume)

    async def _is_gone(self, owner: ObjectReference) -> bool:
        """Ask the server, not our copy, which may be a moment behind: what follows cannot be undone."""
        try:
            claim = await self._client.get(PERSISTENT_VOLUME_CLAIMS, owner.name, owner.namespace)
        except StatusError as error:
            if error.code != 404:
                raise
            return True
        return claim.metadata.uid != owner.uid

    async def _release(self, volume: PersistentVolume) -> None:
        """The claim is gone: keep, or have it deleted by who made it; what nobody here can delete has failed."""
        if volume.status.phase not in ("Released", "Failed"):
            volume = await self._set_phase(volume, "Released")
        policy, name = volume.spec.persistent_volume_reclaim_policy, volume.metadata.name
        maker = volume.metadata.annotations.get(PROVISIONED_BY, "")
        if policy == "Retain" or (policy == "Delete" and maker and not maker.startswith(_IN_TREE)):
            return
        if policy == "Delete":
            text = f'error getting deleter volume plugin for volume "{name}": no volume plugin matched'
            reason = "VolumeFailedDelete"
        else:
            text, reason = "No recycler plugin found for the volume!", "VolumeFailedRecycle"
        if volume.status.phase != "Failed":
            await self._set_phase(volume, "Failed", text)
            self._recorder.event(reference(PERSISTENT_VOLUMES, volume), WARNING, reason, text)

    def _tell_modes_differ(self, volume: PersistentVolume, claim: PersistentVolumeClaim) -> None:
        why, reason = "due to incompatible volumeMode.", "VolumeMismatch"
        asked = f'requested PersistentVolumeClaim "{claim.metadata.name}"'
        about = reference(PERSISTENT_VOLUMES, volume)
        self._recorder.event(about, WARNING, reason, f"Cannot bind PersistentVolume to {asked} {why}")
        offered = f'PersistentVolume "{volume.metadata.name}" to requested PersistentVolumeClaim'
        self._event(claim, WARNING, reason, f"Cannot bind {offered} {why}")

    async def _set_phase(self, volume: PersistentVolume, phase: str, message: str = "") -> PersistentVolume:
        if volume.status.phase == phase:
            return volume
        status = {"phase": phase, "message": message or None}
        return await self._patch(PERSISTENT_VOLUMES, volume, status=status)

    # --- what all of them need ---

    async def _patch(
        self,
        resource: Resource[V],
        view: V,
        *,
        annotations: dict[str, str | None] | dict[str, str] | None = None,
        **change: Any,
    ) -> V:
        """Change what was looked at, or nothing (409): the version is a precondition."""
        metadata: dict[str, Any] = {
            "uid": view.metadata.uid,
            "resourceVersion": view.metadata.resource_version,
        }
        if annotations:
            metadata["annotations"] = annotations
        subresource = "status" if "status" in change else ""
        body = {"metadata": metadata, **change}
        return await self._client.patch(
            resource, view.metadata.name, body, view.metadata.namespace, subresource=subresource
        )

    def _event(self, claim: PersistentVolumeClaim, type_: str, reason: str, message: str) -> None:
        self._recorder.event(reference(PERSISTENT_VOLUME_CLAIMS, claim), type_, reason, message)

    def _claim_changed(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        view = new if new is not None else old
        if view is None:
            return
        self._controller.queue.add(key_of(view))
        if view.spec.volume_name:
            self._controller.queue.add(view.spec.volume_name)

    def _volume_changed(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        view = new if new is not None else old
        if view is None:
            return
        self._controller.queue.add(view.metadata.name)
        owner = view.spec.claim_ref
        if owner is not None:
            self._controller.queue.add(f"{owner.namespace}/{owner.name}")
        elif view.status.phase == "Available":
            self._look_at_waiting()

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        self._look_at_waiting()

    def _look_at_waiting(self) -> None:
        for key, claim in self._claims.cache.items():
            if not claim.spec.volume_name:
                self._controller.queue.add(key)
