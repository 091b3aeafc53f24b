"""The scheduler's part in binding volumes: what stands in a pod's way, and what has to be written before it gets its node.

A claim that waits for its first consumer gets the volume or the node chosen here; then the pod waits until the binder and, where
there is none yet, a provisioner have done their part. Nothing is remembered that the next start would not find again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.api.storage import BOUND_BY_CONTROLLER, SELECTED_NODE, PersistentVolume, PersistentVolumeClaim
from minikube_raw.api.volumematching import is_bound_to
from minikube_raw.client.clock import Clock
from minikube_raw.client.events import reference
from minikube_raw.client.informer import Informers
from minikube_raw.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from minikube_raw.client.rest import Client
from minikube_raw.scheduler import volumefilter
from minikube_raw.scheduler.filters import Failure
from minikube_raw.scheduler.podinfo import PodInfo
from minikube_raw.scheduler.snapshot import NodeInfo
from minikube_raw.scheduler.volumefilter import Placement, PodVolumes, Refused

# kube-scheduler's bindTimeoutSeconds: how long a pod waits for its volumes before another node is looked for.
BIND_SECONDS = 600.0
_USERS = "claims, of pods with a node"


class VolumesNotBound(Exception):
    """The volumes did not come; the text is the Event's."""


class VolumeBinding:
    """Over the informers of claims, volumes and classes; `changed` is called when pods refused for volumes may have a chance."""

    def __init__(self, client: Client, informers: Informers, clock: Clock, changed: Any) -> None:
        self._client = client
        self._clock = clock
        self._changed = changed
        self._claims = informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = informers.of(PERSISTENT_VOLUMES)
        self._classes = informers.of(STORAGE_CLASSES)
        self._pods = informers.of(PODS)
        # Volumes chosen for a pod whose binding is under way, by pod uid.
        self._taken: dict[str, Placement] = {}
        self._moved = asyncio.Event()

    async def start(self) -> None:
        """Follow what matters, once the first lists are there."""
        self._pods.add_index(_USERS, _used_claims)
        for informer in (self._claims, self._volumes, self._classes):
            informer.add_handler(self._look_again)
            await informer.wait_synced()

    def wish(self, pod: PodInfo) -> PodVolumes:
        """Look the pod's claims up. Raises Refused."""
        claims = [self._claim(pod, name, owned) for name, owned in pod.claims]
        found = volumefilter.sort_claims(claims, self._volumes.get, self._classes.get)
        return found._replace(used_alone=any(self._is_used_alone(pod, claim) for claim in claims))

    def check(self, wish: PodVolumes) -> Callable[[NodeInfo], Failure | None]:
        """Return the filter that refuses nodes which will not do."""
        volumes, taken = tuple(self._volumes.cache.values()), self._taken_names()
        return lambda node: volumefilter.check(wish, node, volumes, taken)

    def assume(self, pod: PodInfo, wish: PodVolumes, node: NodeInfo) -> None:
        """Keep what the pod's claims get on its node from being chosen for others."""
        placement = volumefilter.place(wish, node, tuple(self._volumes.cache.values()), self._taken_names())
        self._taken[pod.uid] = placement or Placement()

    def forget(self, uid: str) -> None:
        """The pod is bound, or its binding has failed."""
        self._taken.pop(uid, None)

    async def bind(self, pod: PodInfo, node: NodeInfo) -> None:
        """Write what was chosen, and wait for the volumes. Raises VolumesNotBound, StatusError, OSError."""
        placement = self._taken.get(pod.uid, Placement())
        for claim, volume in placement.matches:
            if not is_bound_to(volume, claim):
                spec = {"claimRef": reference(PERSISTENT_VOLUME_CLAIMS, claim)}
                await self._patch(PERSISTENT_VOLUMES, volume, {BOUND_BY_CONTROLLER: "yes"}, spec=spec)
        for claim in placement.made:
            if claim.metadata.annotations.get(SELECTED_NODE) != node.name:
                await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, {SELECTED_NODE: node.name})
        deadline = self._clock.monotonic() + BIND_SECONDS
        while not self._are_bound(pod, placement, node):
            await self._until_moved(deadline)

    def _claim(self, pod: PodInfo, name: str, owned: bool) -> PersistentVolumeClaim:
        claim = self._claims.get(f"{pod.namespace}/{name}")
        if claim is None:
            if owned:
                raise Refused(f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"')
            raise Refused(f'persistentvolumeclaim "{name}" not found')
        if claim.status.phase == "Lost":
            volume = claim.spec.volume_name
            raise Refused(f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"')
        if claim.metadata.deletion_timestamp is not None:
            raise Refused(f'persistentvolumeclaim "{name}" is being deleted')
        controller = claim.metadata.controller
        if owned and (controller is None or controller.uid != pod.uid):
            whose = f"PVC {pod.namespace}/{name} was not created for pod {pod.key} (pod is not owner)"
            raise Refused(whose)
        return claim

    def _is_used_alone(self, pod: PodInfo, claim: PersistentVolumeClaim) -> bool:
        if "ReadWriteOncePod" not in claim.spec.access_modes:
            return False
        users = self._pods.by_index(_USERS, f"{pod.namespace}/{claim.metadata.name}")
        return any(user.metadata.uid != pod.uid for user in users)

    def _taken_names(self) -> set[str]:
        return {volume.metadata.name for placement in self._taken.values() for _, volume in placement.matches}

    def _are_bound(self, pod: PodInfo, placement: Placement, node: NodeInfo) -> bool:
        """Whether the node's pod can start. Raises VolumesNotBound when it never will be so."""
        if self._pods.get(pod.key) is None:
            raise VolumesNotBound("the pod is gone")
        waiting = [*(claim for claim, _ in placement.matches), *placement.made]
        for each in waiting:
            name = each.metadata.name
            claim = self._claims.get(f"{pod.namespace}/{name}")
            if claim is None or claim.metadata.uid != each.metadata.uid:
                raise VolumesNotBound(f'persistentvolumeclaim "{name}" not found')
            if not claim.fully_bound:
                given_up = each in placement.made and self._was_given_up(claim, each)
                if given_up:
                    raise VolumesNotBound(f'provisioning failed for PVC "{name}"')
                return False
            volume = self._volumes.get(claim.spec.volume_name)
            if volume is None:
                return False
            if not volumefilter.reaches(volume, node):
                raise VolumesNotBound(f'pv "{volume.metadata.name}" node affinity doesn\'t match node "{node.name}"')
        return True

    def _was_given_up(self, claim: PersistentVolumeClaim, before: PersistentVolumeClaim) -> bool:
        """Whether the provisioner has taken the node's name off again; our copy may still be the one before ours was written."""
        newer = claim.metadata.resource_version != before.metadata.resource_version
        return newer and SELECTED_NODE not in claim.metadata.annotations

    async def _until_moved(self, deadline: float) -> None:
        left = deadline - self._clock.monotonic()
        if left <= 0:
            raise VolumesNotBound("binding volumes: context deadline exceeded")
        moved = self._moved
        timer = self._clock.call_later(left, moved.set)
        await moved.wait()
        timer.cancel()

    def _look_again(self, old: object, new: object) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
        self._changed((volumefilter.VOLUME_BINDING, volumefilter.VOLUME_RESTRICTIONS))

    async def _patch(
        self, resource: Any, view: PersistentVolume | PersistentVolumeClaim, notes: dict[str, str], **change: Any
    ) -> None:
        metadata = {"uid": view.metadata.uid, "resourceVersion": view.metadata.resource_version, "annotations": notes}
        body = {"metadata": metadata, **change}
        await self._client.patch(resource, view.metadata.name, body, view.metadata.namespace)


def _used_claims(pod: Pod) -> list[str]:
    if not pod.spec.node_name or pod.status.phase in ("Succeeded", "Failed"):
        return []
    names = (volume.claim_name(pod.metadata.name) for volume in pod.spec.volumes)
    return [f"{pod.metadata.namespace}/{name}" for name in names if name]
