"""Small questions about a Pod that several parts of a node ask: its key, its containers, whether one is a sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from minikube_raw.api.core import Container, Pod
from minikube_raw.linux import filenames

CONFIG_SOURCE = "kubernetes.io/config.source"
_CONFIG_MIRROR = "kubernetes.io/config.mirror"
SYSTEM_CRITICAL = 2_000_000_000  # the priority of system-cluster-critical


def is_static(pod: Pod) -> bool:
    """Whether a pod comes from a file of this node, not from an API server."""
    return pod.metadata.annotations.get(CONFIG_SOURCE) == "file"


def is_critical(pod: Pod) -> bool:
    """Whether the node needs the pod (IsCriticalPod): a static one, its mirror, or one of a system priority class."""
    of_this_node = is_static(pod) or _CONFIG_MIRROR in pod.metadata.annotations
    return of_this_node or pod.spec.priority >= SYSTEM_CRITICAL


def key(pod: Pod) -> str:
    """namespace/name."""
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def all_containers(pod: Pod) -> tuple[Container, ...]:
    """Init containers first, as they start."""
    return pod.spec.init_containers + pod.spec.containers


def every_container(pod: Pod) -> tuple[Container, ...]:
    """All containers with the ephemeral ones, which count for no phase, no class and no readiness."""
    return all_containers(pod) + pod.spec.ephemeral_containers


def container(pod: Pod, name: str) -> Container | None:
    """The container of that name, of whichever kind."""
    return next((each for each in every_container(pod) if each.name == name), None)


def is_sidecar(container: Container) -> bool:
    """Whether an init container keeps running beside the others (restartPolicy: Always)."""
    return container.restart_policy == "Always"


def is_terminal(pod: Pod) -> bool:
    """Whether the pod has ended for good."""
    return pod.status.phase in ("Succeeded", "Failed")


def same_wish(old: Pod, new: Pod) -> bool:
    """Whether two versions of a pod ask for the same."""
    if new.spec.readiness_gates and old.status.conditions != new.status.conditions:
        return False
    before, after = old.metadata, new.metadata
    return (
        old.spec == new.spec
        and before.generation == after.generation
        and before.deletion_timestamp == after.deletion_timestamp
        and before.deletion_grace_period_seconds == after.deletion_grace_period_seconds
        and before.labels == after.labels
        and before.annotations == after.annotations
        and is_terminal(old) == is_terminal(new)
    )


def grace_period(pod: Pod) -> int:
    """Seconds between stop signal and kill; at least one, as a kubelet gives even to forced deletions."""
    asked = pod.metadata.deletion_grace_period_seconds
    return max(pod.spec.termination_grace_period_seconds if asked is None else asked, 1)


def log_directory_name(pod: Pod) -> str:
    """The directory of a pod's logs: namespace_name_uid, as under /var/log/pods; long names are shortened."""
    meta = pod.metadata
    return f"{filenames.of_object(meta.namespace, meta.name, beside=1 + len(meta.uid))}_{meta.uid}"


def logged(logs_dir: Path) -> list[str]:
    """Uids of pods that have a directory of logs."""
    return [entry.name.rpartition("_")[2] for entry in logs_dir.iterdir()] if logs_dir.is_dir() else []


def field_path(pod: Pod, container_name: str) -> str:
    """The field an Event is about: spec.containers{name}, spec.initContainers{name}, …, or "" for the pod itself."""
    if not container_name:
        return ""
    kinds = {"initContainers": pod.spec.init_containers, "ephemeralContainers": pod.spec.ephemeral_containers}
    kind = next((kind for kind, own in kinds.items() if any(each.name == container_name for each in own)), "containers")
    return f"spec.{kind}{{{container_name}}}"


def from_manifest(manifest: Any) -> Pod:
    """A Pod from a decoded manifest (YAML). Raises msgspec.ValidationError naming the field of a wrong type."""
    without_status = {name: value for name, value in manifest.items() if name != "status"}
    return msgspec.convert(without_status, Pod)
