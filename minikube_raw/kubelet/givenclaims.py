"""Claims of a host without a master: from a pod's claim and the volumes given beside it to a directory of this host.

A claim gets a volume that was given and suits it, else, with no class or the class "standard", a directory of its own that is
named for it and outlives the pod, as a named volume does elsewhere: whoever asks by the same name finds the same data. A claim
that is made from a pod's template has its directory among the pod's other volumes, and goes with them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from minikube_raw.api import volumematching
from minikube_raw.api.core import ObjectReference, Pod, Volume
from minikube_raw.api.storage import (
    LOCAL_PROVISIONER,
    PROVISIONED_BY,
    LocalVolumeSource,
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
)
from minikube_raw.api.volumes import PersistentVolumeClaimTemplate
from minikube_raw.kubelet import persistent
from minikube_raw.kubelet.givenvolumes import Given, directory_name
from minikube_raw.kubelet.mounterror import MountError

STANDARD = "standard"


class GivenClaims:
    """What stands beside each pod of a node (persistent.Claims, without an API server).

    `root` holds the directories of claims, `pods_dir` everything of a pod, by its uid.
    """

    def __init__(self, root: Path, pods_dir: Path, node: str) -> None:
        self._root = root
        self._pods_dir = pods_dir
        self._node = node
        self._given: dict[str, Given] = {}

    def give(self, uid: str, found: Given) -> None:
        """Take what stands beside a pod."""
        self._given[uid] = found

    async def of(self, pod: Pod) -> dict[str, PersistentVolume]:
        """By the name of the pod's volume. Raises MountError."""
        beside = self._given.get(pod.metadata.uid, Given())
        asked = [volume for volume in pod.spec.volumes if volume.claim_name(pod.metadata.name)]
        met: dict[str, PersistentVolume] = {}  # by claim
        return {volume.name: self._volume(pod, volume, beside, met) for volume in asked}

    def _volume(self, pod: Pod, volume: Volume, beside: Given, met: dict[str, PersistentVolume]) -> PersistentVolume:
        namespace, name = pod.metadata.namespace, volume.claim_name(pod.metadata.name)
        where = f"error processing PVC {namespace}/{name}"
        claim, place = beside.claims.get(name), self._root / directory_name(namespace, name)
        if volume.ephemeral is not None:
            if claim is not None:
                at = f"{namespace}/{name} was not created for pod {namespace}/{pod.metadata.name}"
                raise MountError(volume.name, f"{where}: PVC {at} (pod is not owner)")
            claim, place = (
                _from_template(pod, volume.ephemeral.volume_claim_template, name),
                self._own_place(pod, volume),
            )
        if claim is None:
            raise MountError(volume.name, f'{where}: persistentvolumeclaim "{name}" does not stand beside the pod')
        claim = _with_class(claim)
        try:
            found = met.get(name) or self._matched(claim, beside, met) or _own(claim, place)
            persistent.check(found, claim, self._node, {"kubernetes.io/hostname": self._node})
        except persistent.ClaimError as error:
            raise MountError(volume.name, f"{where}: {error}") from error
        met[name] = found
        return found

    def _matched(
        self, claim: PersistentVolumeClaim, beside: Given, met: dict[str, PersistentVolume]
    ) -> PersistentVolume | None:
        """A volume that was given, bound to the claim. Raises ClaimError."""
        named, taken = claim.spec.volume_name, {each.metadata.name for each in met.values()}
        others = [each for each in beside.volumes if each.metadata.name not in taken]
        free = [msgspec.structs.replace(each, status=_AVAILABLE) for each in others]
        if named:
            found = next((each for each in free if each.metadata.name == named), None)
            if found is None:
                raise persistent.ClaimError(f'persistentvolume "{named}" does not stand beside the pod')
            if why := volumematching.mismatch(found, claim):
                raise persistent.ClaimError(f'Cannot bind to requested volume "{named}": {why}')
        else:
            found = volumematching.find(claim, free)
        return None if found is None else _bound(found, claim)

    def _own_place(self, pod: Pod, volume: Volume) -> Path:
        return self._pods_dir / pod.metadata.uid / "volumes" / "kubernetes.io~local-volume" / volume.name


def _own(claim: PersistentVolumeClaim, place: Path) -> PersistentVolume:
    """A directory for the claim alone. Raises ClaimError."""
    if claim.storage_class != STANDARD:
        text = "no persistent volumes available for this claim and no storage class is set"
        raise persistent.ClaimError(
            f'storageclass.storage.k8s.io "{claim.storage_class}" not found' if claim.storage_class else text
        )
    if claim.spec.volume_mode != persistent.FILE_SYSTEM:
        raise persistent.ClaimError(f"volume mode {claim.spec.volume_mode} is not supported by the class {STANDARD}")
    name = directory_name(claim.metadata.namespace, claim.metadata.name)
    meta = msgspec.structs.replace(claim.metadata, name=name, uid=name, annotations={PROVISIONED_BY: LOCAL_PROVISIONER})
    spec = msgspec.structs.replace(
        _LOCAL, access_modes=claim.spec.access_modes, local=LocalVolumeSource(path=str(place))
    )
    return _bound(PersistentVolume(metadata=meta, spec=spec), claim)


def _from_template(pod: Pod, template: PersistentVolumeClaimTemplate, name: str) -> PersistentVolumeClaim:
    """The claim that is made for a pod."""
    meta = msgspec.structs.replace(
        template.metadata, name=name, namespace=pod.metadata.namespace, uid=f"{pod.metadata.uid}-{name}"
    )
    spec = msgspec.convert(template.spec, PersistentVolumeClaimSpec)
    return PersistentVolumeClaim(metadata=meta, spec=spec)


def _with_class(claim: PersistentVolumeClaim) -> PersistentVolumeClaim:
    """A claim that says no class has the default one."""
    if claim.storage_class is not None:
        return claim
    return msgspec.structs.replace(claim, spec=msgspec.structs.replace(claim.spec, storage_class_name=STANDARD))


_AVAILABLE = msgspec.structs.replace(PersistentVolume().status, phase="Available")
_LOCAL = PersistentVolume().spec


def _bound(volume: PersistentVolume, claim: PersistentVolumeClaim) -> PersistentVolume:
    meta = claim.metadata
    reference = ObjectReference(kind="PersistentVolumeClaim", namespace=meta.namespace, name=meta.name, uid=meta.uid)
    uid = volume.metadata.uid or volume.metadata.name
    return msgspec.structs.replace(
        volume,
        metadata=msgspec.structs.replace(volume.metadata, uid=uid),
        spec=msgspec.structs.replace(volume.spec, claim_ref=reference),
    )
