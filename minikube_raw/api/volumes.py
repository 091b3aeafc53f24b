"""core/v1 volumes as read-only views: sources a kubelet here can mount, and their mounts in a container."""

from __future__ import annotations

from typing import Any

import msgspec

from minikube_raw.api.meta import ObjectMeta, View


class KeyToPath(View, frozen=True, gc=False):
    """A key of a ConfigMap or Secret and the file it becomes, relative to the volume's root."""

    key: str = ""
    path: str = ""
    mode: int | None = None


class EmptyDirVolumeSource(View, frozen=True, gc=False):
    """A directory that lives as long as the pod; medium Memory makes it a tmpfs. `size_limit` is a quantity."""

    medium: str = ""
    size_limit: str | int | float | None = None


class HostPathVolumeSource(View, frozen=True, gc=False):
    """A path of the node; `type` says what must be there (DirectoryOrCreate, File, Socket, …)."""

    path: str = ""
    type: str = ""


class ConfigMapVolumeSource(View, frozen=True, gc=False):
    """Files from a ConfigMap; all keys unless `items` chooses."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int = 0o644
    optional: bool = False


class SecretVolumeSource(View, frozen=True, gc=False):
    """Files from a Secret; all keys unless `items` chooses."""

    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int = 0o644
    optional: bool = False


class ObjectFieldSelector(View, frozen=True, gc=False):
    """A field of the pod by path: metadata.name, metadata.labels['x'], status.podIP, …"""

    api_version: str = "v1"
    field_path: str = ""


class ResourceFieldSelector(View, frozen=True, gc=False):
    """A container's limit or request, divided by `divisor` (a quantity; "0" and absent mean 1)."""

    container_name: str = ""
    resource: str = ""
    divisor: str | int | float = "0"


class DownwardAPIVolumeFile(View, frozen=True, gc=False):
    """A file that tells a container about its pod."""

    path: str = ""
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPIVolumeSource(View, frozen=True, gc=False):
    """Files that tell a container about its pod."""

    items: tuple[DownwardAPIVolumeFile, ...] = ()
    default_mode: int = 0o644


class ConfigMapProjection(View, frozen=True, gc=False):
    """A ConfigMap as one source of a projected volume."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class SecretProjection(View, frozen=True, gc=False):
    """A Secret as one source of a projected volume."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class DownwardAPIProjection(View, frozen=True, gc=False):
    """Facts about the pod as one source of a projected volume."""

    items: tuple[DownwardAPIVolumeFile, ...] = ()


class ServiceAccountTokenProjection(View, frozen=True, gc=False):
    """A token bound to the pod, renewed by the kubelet."""

    path: str = ""
    audience: str = ""
    expiration_seconds: int = 3600


class VolumeProjection(View, frozen=True, gc=False):
    """One source of a projected volume; exactly one field is set."""

    config_map: ConfigMapProjection | None = None
    secret: SecretProjection | None = None
    downward_api: DownwardAPIProjection | None = msgspec.field(default=None, name="downwardAPI")
    service_account_token: ServiceAccountTokenProjection | None = None
    cluster_trust_bundle: dict[str, Any] | None = None


class ProjectedVolumeSource(View, frozen=True, gc=False):
    """Several sources in one directory."""

    sources: tuple[VolumeProjection, ...] = ()
    default_mode: int = 0o644


class PersistentVolumeClaimVolumeSource(View, frozen=True, gc=False):
    """A claim of the pod's namespace."""

    claim_name: str = ""
    read_only: bool = False


class PersistentVolumeClaimTemplate(View, frozen=True, gc=False):
    """The claim that is made for a pod: its metadata's labels and annotations, and its spec as it came."""

    metadata: ObjectMeta = ObjectMeta()
    spec: dict[str, Any] = {}


class EphemeralVolumeSource(View, frozen=True, gc=False):
    """A volume that is claimed for the pod and goes with it; the claim is called POD-VOLUME."""

    volume_claim_template: PersistentVolumeClaimTemplate = PersistentVolumeClaimTemplate()


class ImageVolumeSource(View, frozen=True, gc=False):
    """An image whose files are seen read-only; `pull_policy` is a container's imagePullPolicy."""

    reference: str = ""
    pull_policy: str = ""


class Volume(View, frozen=True, gc=False):
    """core/v1.Volume; one source is set, or none of those known here."""

    name: str = ""
    empty_dir: EmptyDirVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    ephemeral: EphemeralVolumeSource | None = None
    image: ImageVolumeSource | None = None

    def claim_name(self, pod: str) -> str:
        """Return the name of the claim behind the volume in a pod of that name, empty for none."""
        if self.persistent_volume_claim is not None:
            return self.persistent_volume_claim.claim_name
        return f"{pod}-{self.name}" if self.ephemeral is not None else ""


class VolumeMount(View, frozen=True, gc=False):
    """Where a container sees a volume; `mount_propagation` is None, HostToContainer or Bidirectional."""

    name: str = ""
    mount_path: str = ""
    read_only: bool = False
    recursive_read_only: str = ""
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: str = ""


class VolumeDevice(View, frozen=True, gc=False):
    """Where a container sees a raw block volume."""

    name: str = ""
    device_path: str = ""
