"""Volumes as filters see them: which nodes reach a pod's bound volumes, and where those that wait for the pod could be.

Pure functions over what was looked up once per pod, with kube-scheduler's reasons word for word
(pkg/scheduler/framework/plugins/volumebinding and volumerestrictions, v1.36).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from minikube_raw.api.node_affinity import Term, node_terms
from minikube_raw.api.storage import SELECTED_NODE, PersistentVolume, PersistentVolumeClaim, StorageClass
from minikube_raw.api.volumematching import find
from minikube_raw.scheduler.filters import Failure
from minikube_raw.scheduler.snapshot import NodeInfo

VOLUME_BINDING, VOLUME_RESTRICTIONS = "VolumeBinding", "VolumeRestrictions"
NOT_REACHED = "node(s) didn't match PersistentVolume's node affinity"
NOTHING_TO_BIND = "node(s) didn't find available persistent volumes to bind"
VOLUME_MISSING = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
USED_ALONE = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
# Classes of which volumes are made by hand only.
_BY_HAND = frozenset({"", "kubernetes.io/no-provisioner"})


class Refused(Exception):
    """No node will do, whatever its state; the text is the reason."""


class PodVolumes(NamedTuple):
    """A pod's claims: the volumes of those that are bound, and those that wait for the pod's node, with their classes."""

    bound: tuple[PersistentVolume, ...] = ()
    lost: bool = False
    delayed: tuple[tuple[PersistentVolumeClaim, StorageClass], ...] = ()
    used_alone: bool = False


class Placement(NamedTuple):
    """What a node means for the claims that wait: volumes that are there, and volumes to be made."""

    matches: tuple[tuple[PersistentVolumeClaim, PersistentVolume], ...] = ()
    made: tuple[PersistentVolumeClaim, ...] = ()


def sort_claims(
    claims: Iterable[PersistentVolumeClaim],
    volume: Callable[[str], PersistentVolume | None],
    storage_class: Callable[[str], StorageClass | None],
) -> PodVolumes:
    """Look a pod's claims up. Raises Refused when one has to be bound before the pod may have a node."""
    bound: list[PersistentVolume] = []
    delayed: list[tuple[PersistentVolumeClaim, StorageClass]] = []
    lost = False
    for claim in claims:
        if claim.fully_bound:
            found = volume(claim.spec.volume_name)
            lost = lost or found is None
            bound += [found] if found is not None else []
            continue
        of_class = storage_class(claim.storage_class or "")
        if of_class is None or not of_class.waits or claim.spec.volume_name:
            raise Refused("pod has unbound immediate PersistentVolumeClaims")
        delayed.append((claim, of_class))
    return PodVolumes(tuple(bound), lost, tuple(delayed))


def reaches(volume: PersistentVolume, node: NodeInfo) -> bool:
    """Whether the node can reach the volume."""
    terms: Sequence[Term] = node_terms(volume.spec.node_affinity.required)
    return not terms or any(term.matches(node.name, node.labels) for term in terms)


def check(
    wish: PodVolumes, node: NodeInfo, volumes: Sequence[PersistentVolume], taken: Collection[str]
) -> Failure | None:
    """Refuse a node from which a pod's volumes cannot be reached or made. Volumes in `taken` are meant for others."""
    if wish.used_alone:
        return Failure(VOLUME_RESTRICTIONS, (USED_ALONE,), resolvable=True)
    if wish.lost:
        return Failure(VOLUME_BINDING, (VOLUME_MISSING,))
    if not all(reaches(volume, node) for volume in wish.bound):
        return Failure(VOLUME_BINDING, (NOT_REACHED,))
    if wish.delayed and place(wish, node, volumes, taken) is None:
        return Failure(VOLUME_BINDING, (NOTHING_TO_BIND,))
    return None


def place(
    wish: PodVolumes, node: NodeInfo, volumes: Sequence[PersistentVolume], taken: Collection[str]
) -> Placement | None:
    """Return which volumes the waiting claims get on a node, the smallest claims first; None when one gets none."""
    matches: list[tuple[PersistentVolumeClaim, PersistentVolume]] = []
    made: list[PersistentVolumeClaim] = []
    gone = set(taken)
    for claim, of_class in wish.delayed:
        chosen = claim.metadata.annotations.get(SELECTED_NODE)
        found = None if chosen else find(claim, volumes, reaches=lambda each: reaches(each, node), taken=gone)
        if found is not None:
            matches.append((claim, found))
            gone.add(found.metadata.name)
        elif chosen in (None, node.name) and of_class.provisioner not in _BY_HAND and _allows(of_class, node):
            made.append(claim)
        else:
            return None
    return Placement(tuple(matches), tuple(made))


def _allows(storage_class: StorageClass, node: NodeInfo) -> bool:
    """Whether the class makes volumes for that node (allowedTopologies: terms are alternatives)."""
    terms = storage_class.allowed_topologies
    return not terms or any(
        all(node.labels.get(each["key"]) in each["values"] for each in term.get("matchLabelExpressions") or ())
        for term in terms
    )
