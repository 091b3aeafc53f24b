"""Which PersistentVolume suits a claim: the smallest that is big enough, or the one that was meant for it all along.

Pure, and below both of its users: the binder looks without a node, the scheduler for one node at a time
(k8s.io/component-helpers/storage/volume/pv_helpers.go, FindMatchingVolume, v1.36).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from minikube_raw.api import quantity, selectors
from minikube_raw.api.selectors import EVERYTHING
from minikube_raw.api.storage import PersistentVolume, PersistentVolumeClaim

# Whether a node can reach the volume.
Reaches = Callable[[PersistentVolume], bool]


def is_bound_to(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether the volume is the claim's, or kept for a claim of its name."""
    reference = volume.spec.claim_ref
    if reference is None:
        return False
    names = (reference.namespace, reference.name) == (claim.metadata.namespace, claim.metadata.name)
    return names and reference.uid in ("", claim.metadata.uid)


def mismatch(volume: PersistentVolume, claim: PersistentVolumeClaim) -> str:
    """Return why a volume that a claim names cannot be its volume, empty when it can."""
    if storage(volume.spec.capacity) < storage(claim.spec.resources.requests):
        return "requested PV is too small"
    if volume.storage_class != (claim.storage_class or ""):
        return "storageClassName does not match"
    if volume.spec.volume_mode != claim.spec.volume_mode:
        return "incompatible volumeMode"
    if not _offers(volume, claim):
        return "incompatible accessMode"
    return ""


def find(
    claim: PersistentVolumeClaim,
    volumes: Iterable[PersistentVolume],
    *,
    delayed: bool = False,
    reaches: Reaches | None = None,
    taken: Collection[str] = (),
) -> PersistentVolume | None:
    """Return the volume for a claim. `reaches` judges a node; without a node a `delayed` claim gets only what is kept for it.

    Volumes in `taken` (by name) are as good as not there.
    """
    best: PersistentVolume | None = None
    selector = selectors.from_view(claim.spec.selector) if claim.spec.selector is not None else EVERYTHING
    wanted = storage(claim.spec.resources.requests)
    for volume in volumes:
        if volume.metadata.name in taken or not _suits(volume, claim, wanted):
            continue
        reachable = reaches is None or reaches(volume)
        if is_bound_to(volume, claim):
            return volume if reachable else None
        if (delayed and reaches is None) or not reachable:
            continue
        free = volume.status.phase == "Available" and selector.matches(volume.metadata.labels)
        if not free or volume.storage_class != (claim.storage_class or ""):
            continue
        if best is None or storage(volume.spec.capacity) < storage(best.spec.capacity):
            best = volume
    return best


def _suits(volume: PersistentVolume, claim: PersistentVolumeClaim, wanted: int) -> bool:
    spec = volume.spec
    if spec.claim_ref is not None and not is_bound_to(volume, claim):
        return False
    if volume.metadata.deletion_timestamp is not None or spec.volume_mode != claim.spec.volume_mode:
        return False
    return _offers(volume, claim) and storage(spec.capacity) >= wanted


def _offers(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    return set(claim.spec.access_modes) <= set(volume.spec.access_modes)


def storage(amounts: dict[str, Any]) -> int:
    """Return a resource list's storage in nanos, 0 for none."""
    return quantity.parse(amounts.get("storage", 0)).nanos
