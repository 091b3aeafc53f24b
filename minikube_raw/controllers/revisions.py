"""How a Deployment's history is kept: which ReplicaSet is which revision, in annotations and template hashes.

A ReplicaSet belongs to a template if their pod templates are equal but for the label pod-template-hash; its revision
number grows when it becomes the current one (again). (pkg/controller/deployment/util/deployment_util.go, v1.36)
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from minikube_raw.api import naming
from minikube_raw.api.apps import Deployment, ReplicaSet

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
TEMPLATE_HASH = "pod-template-hash"

_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    }
)
_HISTORY_LENGTH = 2000


def revision(replica_set: ReplicaSet) -> int:
    """Return the revision a ReplicaSet was last current as; 0 when nothing (readable) says so."""
    try:
        return int(replica_set.metadata.annotations.get(REVISION, "0"))
    except ValueError:
        return 0


def newest_revision(replica_sets: Iterable[ReplicaSet]) -> int:
    """Return the highest revision."""
    return max(map(revision, replica_sets), default=0)


def find_new(deployment: Deployment, replica_sets: Iterable[ReplicaSet]) -> ReplicaSet | None:
    """Return the oldest ReplicaSet made from the Deployment's present template."""
    wanted = _comparable(bytes(deployment.spec.template))
    return next((each for each in by_age(replica_sets) if _comparable(bytes(each.spec.template)) == wanted), None)


def by_age(replica_sets: Iterable[ReplicaSet]) -> list[ReplicaSet]:
    """Sort, the oldest first."""
    return sorted(replica_sets, key=lambda each: (each.metadata.creation_timestamp or "", each.metadata.name))


def same_template(deployment: Deployment, replica_set: ReplicaSet) -> bool:
    """Whether the ReplicaSet was made from the Deployment's present template."""
    return _comparable(bytes(deployment.spec.template)) == _comparable(bytes(replica_set.spec.template))


def annotations_for(
    deployment: Deployment,
    replica_set: ReplicaSet | None,
    new_revision: int,
    *,
    replicas: tuple[int, int] | None = None,
) -> dict[str, str]:
    """Return the annotations the current ReplicaSet must have: the Deployment's own, and its place in history.

    `replicas` is (desired, max), written on a new ReplicaSet; an existing one's are written when it is scaled.
    """
    wanted = dict(replica_set.metadata.annotations) if replica_set is not None else {}
    wanted |= {k: v for k, v in deployment.metadata.annotations.items() if k not in _NOT_COPIED}
    before = wanted.get(REVISION, "")
    if not before.isdecimal() or int(before) < new_revision:
        wanted[REVISION] = str(new_revision)
        if before:
            wanted[REVISION_HISTORY] = _append_history(wanted.get(REVISION_HISTORY, ""), before)
    if replicas is not None:
        wanted[DESIRED_REPLICAS], wanted[MAX_REPLICAS] = map(str, replicas)
    return wanted


def new_replica_set(
    deployment: Deployment, owner: dict[str, Any], replicas: int, annotations: dict[str, str]
) -> dict[str, Any]:
    """Return the ReplicaSet for the Deployment's present template, named by the template's hash."""
    template: dict[str, Any] = msgspec.json.decode(deployment.spec.template)
    hash_ = naming.template_hash(template, deployment.status.collision_count)
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), TEMPLATE_HASH: hash_}
    selector: dict[str, Any] = msgspec.to_builtins(deployment.spec.selector)
    selector["matchLabels"] = {**selector.get("matchLabels", {}), TEMPLATE_HASH: hash_}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment.metadata.name}-{hash_}",
            "labels": metadata["labels"],
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": deployment.spec.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    }


def to_clean_up(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Return the old ReplicaSets beyond revisionHistoryLimit that are empty and settled, the oldest revisions."""
    alive = [each for each in old if each.metadata.deletion_timestamp is None]
    excess = len(alive) - deployment.spec.revision_history_limit
    oldest = sorted(alive, key=lambda each: (revision(each), each.metadata.creation_timestamp or ""))
    return [each for each in oldest[: max(excess, 0)] if _is_settled_empty(each)]


def _is_settled_empty(replica_set: ReplicaSet) -> bool:
    observed = replica_set.metadata.generation <= replica_set.status.observed_generation
    return observed and replica_set.status.replicas == 0 and replica_set.spec.replicas == 0


def _append_history(history: str, entry: str) -> str:
    entries = [*history.split(","), entry] if history else [entry]
    while len(",".join(entries)) > _HISTORY_LENGTH and len(entries) > 1:
        entries.pop(0)
    return ",".join(entries)


@functools.lru_cache(maxsize=2048)
def _comparable(template: bytes) -> bytes:
    """Return a template in one spelling without its hash label; cached, since templates rarely change."""
    plain: dict[str, Any] = msgspec.json.decode(template)
    metadata = plain.get("metadata") or {}
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k != TEMPLATE_HASH}
    metadata = {k: v for k, v in metadata.items() if k not in ("labels", "creationTimestamp") and v}
    plain["metadata"] = metadata | ({"labels": labels} if labels else {})
    return msgspec.json.encode(plain, order="deterministic")
