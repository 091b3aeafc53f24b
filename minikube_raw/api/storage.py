"""PersistentVolumes, claims and StorageClasses as read-only views, with the words in which their parties talk to each other.

The annotations are the protocol between scheduler, binder and provisioner
(k8s.io/component-helpers/storage/volume/pv_helpers.go, v1.36).
"""

from __future__ import annotations

from typing import Any

from minikube_raw.api.containers import QuantityText, ResourceRequirements
from minikube_raw.api.core import ObjectReference
from minikube_raw.api.meta import LabelSelector, ObjectMeta, View
from minikube_raw.api.volumes import HostPathVolumeSource

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONER, BETA_PROVISIONER = (f"volume{beta}.kubernetes.io/storage-provisioner" for beta in ("", ".beta"))
PV_PROTECTION, PVC_PROTECTION = "kubernetes.io/pv-protection", "kubernetes.io/pvc-protection"
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
DEFAULT_CLASS, BETA_DEFAULT_CLASS = (f"storageclass{beta}.kubernetes.io/is-default-class" for beta in ("", ".beta"))
WAIT_FOR_FIRST_CONSUMER = "WaitForFirstConsumer"
# The provisioner in the box: directories of the node on which the claim's first pod runs. The node says where it keeps them,
# knows its volumes by a label, and removes the data before the finalizer goes.
LOCAL_PROVISIONER = "minikube-raw.io/local"
LOCAL_VOLUMES = "minikube-raw.io/local-volumes"
LOCAL_NODE = "minikube-raw.io/node"
LOCAL_DATA = "minikube-raw.io/local-data"


class LocalVolumeSource(View, frozen=True, gc=False):
    """A directory or device of one node, which the volume's node affinity names."""

    path: str = ""
    fs_type: str = ""


class VolumeNodeAffinity(View, frozen=True, gc=False):
    """From which nodes a volume can be reached; `required` is a NodeSelector as it came."""

    required: dict[str, Any] = {}


class PersistentVolumeSpec(View, frozen=True, gc=False):
    """core/v1.PersistentVolumeSpec; of its sources those that a node here can mount."""

    capacity: dict[str, QuantityText] = {}
    access_modes: tuple[str, ...] = ()
    claim_ref: ObjectReference | None = None
    persistent_volume_reclaim_policy: str = "Retain"
    storage_class_name: str = ""
    volume_mode: str = "Filesystem"
    node_affinity: VolumeNodeAffinity = VolumeNodeAffinity()
    host_path: HostPathVolumeSource | None = None
    local: LocalVolumeSource | None = None


class PersistentVolumeStatus(View, frozen=True, gc=False):
    """core/v1.PersistentVolumeStatus; `phase` is Pending, Available, Bound, Released or Failed."""

    phase: str = "Pending"
    message: str = ""
    reason: str = ""


class PersistentVolume(View, frozen=True, gc=False):
    """core/v1.PersistentVolume."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: PersistentVolumeSpec = PersistentVolumeSpec()
    status: PersistentVolumeStatus = PersistentVolumeStatus()

    @property
    def storage_class(self) -> str:
        """The volume's class, by annotation too as long ago."""
        return self.metadata.annotations.get(BETA_CLASS, self.spec.storage_class_name)


class PersistentVolumeClaimSpec(View, frozen=True, gc=False):
    """core/v1.PersistentVolumeClaimSpec; a class of None was not said, an empty one asks for a volume without class."""

    access_modes: tuple[str, ...] = ()
    selector: LabelSelector | None = None
    resources: ResourceRequirements = ResourceRequirements()
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_mode: str = "Filesystem"


class PersistentVolumeClaimStatus(View, frozen=True, gc=False):
    """core/v1.PersistentVolumeClaimStatus; `phase` is Pending, Bound or Lost."""

    phase: str = "Pending"
    access_modes: tuple[str, ...] = ()
    capacity: dict[str, QuantityText] = {}


class PersistentVolumeClaim(View, frozen=True, gc=False):
    """core/v1.PersistentVolumeClaim."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()

    @property
    def storage_class(self) -> str | None:
        """The claim's class, by annotation too as long ago."""
        return self.metadata.annotations.get(BETA_CLASS, self.spec.storage_class_name)

    @property
    def fully_bound(self) -> bool:
        """Whether both sides of the binding are written down."""
        return bool(self.spec.volume_name) and BIND_COMPLETED in self.metadata.annotations


class StorageClass(View, frozen=True, gc=False):
    """storage/v1.StorageClass."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    provisioner: str = ""
    reclaim_policy: str = "Delete"
    volume_binding_mode: str = "Immediate"
    allowed_topologies: tuple[dict[str, Any], ...] = ()
    mount_options: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether a claim is bound only when the scheduler has chosen a node for its first pod."""
        return self.volume_binding_mode == WAIT_FOR_FIRST_CONSUMER

    @property
    def is_default(self) -> bool:
        """Whether claims that say no class get this one."""
        annotations = self.metadata.annotations
        return "true" in (annotations.get(DEFAULT_CLASS), annotations.get(BETA_DEFAULT_CLASS))
