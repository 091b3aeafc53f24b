"""PersistentVolumes on the node: from a pod's claim to a directory here, and what keeps a pod from it.

Words are the kubelet's (desired_state_of_world_populator.go, operation_generator.go, local.go, v1.36).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from minikube_raw.api.core import Pod, Volume
from minikube_raw.api.node_affinity import node_terms
from minikube_raw.api.status import StatusError
from minikube_raw.api.storage import LOCAL_PROVISIONER, PROVISIONED_BY, PersistentVolume, PersistentVolumeClaim
from minikube_raw.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from minikube_raw.client.rest import Client
from minikube_raw.kubelet import hostpath, localvolumes
from minikube_raw.kubelet.mounterror import MountError
from minikube_raw.linux import tree_owners

BLOCK, FILE_SYSTEM = "Block", "Filesystem"


class Claims:
    """Finds the PersistentVolumes behind a pod's claims. `labels` are the node's, asked for when they are needed."""

    def __init__(self, client: Client, node: str, labels: Callable[[], Mapping[str, str]]) -> None:
        self._client = client
        self._node = node
        self._labels = labels

    async def of(self, pod: Pod) -> dict[str, PersistentVolume]:
        """By the name of the pod's volume. A node may get claims by name, not follow them. Raises MountError."""
        return {
            volume.name: await self._volume(pod, volume)
            for volume in pod.spec.volumes
            if volume.claim_name(pod.metadata.name)
        }

    async def _volume(self, pod: Pod, volume: Volume) -> PersistentVolume:
        name, namespace = volume.claim_name(pod.metadata.name), pod.metadata.namespace
        try:
            claim = await self._client.get(PERSISTENT_VOLUME_CLAIMS, name, namespace)
        except (OSError, StatusError) as error:
            text = f"error processing PVC {namespace}/{name}: failed to fetch PVC from API server: {error}"
            raise MountError(volume.name, text) from error
        try:
            found = await self._client.get(PERSISTENT_VOLUMES, volume_name(pod, volume, claim))
            check(found, claim, self._node, self._labels())
        except ClaimError as error:
            raise MountError(volume.name, str(error)) from error
        except (OSError, StatusError) as error:
            raise MountError(volume.name, f"failed to fetch PV from API server: {error}") from error
        return found


class ClaimError(Exception):
    """A claim cannot be used (yet); the text follows `error processing PVC …`."""


def volume_name(pod: Pod, volume: Volume, claim: PersistentVolumeClaim) -> str:
    """The name of the PersistentVolume behind a pod's volume. Raises ClaimError."""
    name = volume.claim_name(pod.metadata.name)
    where = f"error processing PVC {pod.metadata.namespace}/{name}"
    if volume.ephemeral is not None and not _belongs_to(claim, pod):
        at = f"{pod.metadata.namespace}/{name} was not created for pod {pod.metadata.namespace}/{pod.metadata.name}"
        raise ClaimError(f"{where}: PVC {at} (pod is not owner)")
    if claim.metadata.deletion_timestamp is not None:
        raise ClaimError(f"{where}: can't start pod because PVC is being deleted")
    if claim.status.phase != "Bound" or not claim.spec.volume_name:
        raise ClaimError(f"{where}: PVC is not bound")
    return claim.spec.volume_name


def check(volume: PersistentVolume, claim: PersistentVolumeClaim, node: str, labels: Mapping[str, str]) -> None:
    """See that the volume is the claim's and can be reached from this node. Raises ClaimError."""
    reference = volume.spec.claim_ref
    if reference is None or reference.uid != claim.metadata.uid:
        raise ClaimError(f"Found PV object {volume.metadata.name} but its pv.Spec.ClaimRef is not this claim's")
    if volume.spec.volume_mode == BLOCK and volume.spec.local is None:
        raise ClaimError(f"PV {volume.metadata.name} has volumeMode Block, which only local volumes have on this node")
    if volume.spec.host_path is None and volume.spec.local is None:
        raise ClaimError(f"PV {volume.metadata.name} is of a kind that is not supported on this node")
    terms = node_terms(volume.spec.node_affinity.required)
    if terms and not any(term.matches(node, labels) for term in terms):
        raise ClaimError("no matching NodeSelectorTerms")


def path_of(volume: PersistentVolume) -> str:
    """Where the volume lies on this node."""
    source = volume.spec.local or volume.spec.host_path
    return source.path if source is not None else ""


def set_up(volume: PersistentVolume, pod: Pod) -> None:
    """Make the directory if it is ours to make, check it, and give a local volume to the pod's group. Raises ValueError, OSError."""
    if volume.spec.host_path is not None:
        hostpath.set_up(volume.spec.host_path)
        return
    path = path_of(volume)
    if volume.metadata.annotations.get(PROVISIONED_BY) == LOCAL_PROVISIONER:
        localvolumes.make_directory(Path(path).parent, Path(path).name)
    if not os.path.exists(path):
        raise ValueError(f'path "{path}" does not exist')
    if volume.spec.volume_mode == BLOCK:
        if not stat.S_ISBLK(os.stat(path).st_mode):
            raise ValueError(f'path "{path}" is not a block device')
        return
    group = pod.spec.security_context.fs_group
    if group is not None:
        own(path, group, pod.spec.security_context.fs_group_change_policy)


def own(path: str, group: int, policy: str) -> None:
    """Give a volume to a group; with OnRootMismatch only if its root is not the group's yet."""
    if policy != "OnRootMismatch" or not tree_owners.belongs_to_group(path, group):
        tree_owners.give_to_group(path, group)


def _belongs_to(claim: PersistentVolumeClaim, pod: Pod) -> bool:
    return any(owner.uid == pod.metadata.uid and owner.controller for owner in claim.metadata.owner_references)
