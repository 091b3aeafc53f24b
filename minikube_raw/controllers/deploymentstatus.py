"""A Deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure. Pure functions.

(pkg/controller/deployment/progress.go and sync.go, v1.36)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from minikube_raw.api import meta
from minikube_raw.api.apps import Deployment, DeploymentStatus, ReplicaSet
from minikube_raw.api.meta import Condition, condition
from minikube_raw.client.clock import seconds_of, timestamp
from minikube_raw.controllers import rollout

AVAILABLE, PROGRESSING, REPLICA_FAILURE = "Available", "Progressing", "ReplicaFailure"
NEW_AVAILABLE, TIMED_OUT, PAUSED = "NewReplicaSetAvailable", "ProgressDeadlineExceeded", "DeploymentPaused"
NO_DEADLINE = 2**31 - 1

Conditions = tuple[Condition, ...]


def has_deadline(deployment: Deployment) -> bool:
    """Whether progress is watched at all."""
    return deployment.spec.progress_deadline_seconds != NO_DEADLINE


def set_condition(
    conditions: Conditions, kind: str, status: str, reason: str, message: str, now: float, *, again: bool = False
) -> Conditions:
    """Return the conditions with one set, moved to the end.

    Nothing changes if status and reason are as before, unless `again` asks for a fresh lastUpdateTime; the transition
    time is kept as long as the status is.
    """
    before = condition(conditions, kind)
    if before is not None and (before.status, before.reason) == (status, reason) and not again:
        return conditions
    kept = before.last_transition_time if before is not None and before.status == status else None
    entry = Condition(
        type=kind,
        status=status,
        last_update_time=timestamp(now),
        last_transition_time=kept or timestamp(now),
        reason=reason,
        message=message,
    )
    return (*without(conditions, kind), entry)


def without(conditions: Conditions, kind: str) -> Conditions:
    """Return the conditions less one."""
    return tuple(entry for entry in conditions if entry.type != kind)


def calculate(
    deployment: Deployment, new: ReplicaSet | None, everything: Sequence[ReplicaSet], now: float
) -> DeploymentStatus:
    """Return the counts and whether enough is available."""
    available = sum(each.status.available_replicas for each in everything)
    enough = available >= deployment.spec.replicas - rollout.max_unavailable(deployment)
    conditions = set_condition(
        deployment.status.conditions,
        AVAILABLE,
        "True" if enough else "False",
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "Deployment has minimum availability." if enough else "Deployment does not have minimum availability.",
        now,
    )
    return DeploymentStatus(
        observed_generation=deployment.metadata.generation,
        replicas=sum(each.status.replicas for each in everything),
        updated_replicas=new.status.replicas if new is not None else 0,
        ready_replicas=sum(each.status.ready_replicas for each in everything),
        available_replicas=available,
        unavailable_replicas=max(rollout.wished(everything) - available, 0),
        terminating_replicas=sum(each.status.terminating_replicas or 0 for each in everything),
        conditions=conditions,
        collision_count=deployment.status.collision_count,
    )


def with_progress(
    deployment: Deployment, new: ReplicaSet | None, everything: Sequence[ReplicaSet], now: float
) -> DeploymentStatus:
    """Return the status of a rollout: counts, and whether it goes on, is through or is stuck."""
    status = calculate(deployment, new, everything, now)
    conditions = status.conditions
    if not has_deadline(deployment):
        conditions = without(conditions, PROGRESSING)
    elif not _was_complete(deployment, status):
        conditions = _progress(deployment, new, status, now)
    failure = _replica_failure(new, everything)
    conditions = without(conditions, REPLICA_FAILURE)
    if failure is not None:
        before = condition(status.conditions, REPLICA_FAILURE)
        known = (before,) if before is not None and before.reason == failure.reason else ()
        conditions = (*conditions, *known) if known else set_condition(
            conditions, REPLICA_FAILURE, failure.status, failure.reason, failure.message, now
        )  # fmt: skip
    return msgspec.structs.replace(status, conditions=conditions)


def is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    """Whether exactly the wished pods of the present template are there and available."""
    size = deployment.spec.replicas
    counts = (status.updated_replicas, status.replicas, status.available_replicas)
    return counts == (size, size, size) and status.observed_generation >= deployment.metadata.generation


def seconds_until_deadline(deployment: Deployment, status: DeploymentStatus, now: float) -> float | None:
    """Return when to look whether the deadline was missed; None when it cannot be."""
    progressing = condition(status.conditions, PROGRESSING)
    if not has_deadline(deployment) or progressing is None or is_complete(deployment, status):
        return None
    if progressing.reason in (TIMED_OUT, NEW_AVAILABLE):
        return None
    updated = seconds_of(progressing.last_update_time) or now
    # One more second, since the times on conditions are whole ones.
    return max(updated + deployment.spec.progress_deadline_seconds + 1 - now, 1.0)


def changes(before: DeploymentStatus, after: DeploymentStatus) -> dict[str, Any]:
    """Return a merge patch from one status to the other: zeros go away, as Go leaves them out."""
    old, new = meta.to_dict(before), meta.to_dict(after)
    patch = {name: value for name, value in new.items() if old.get(name) != value}
    return patch | {name: None for name in old if name not in new}


def _was_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    """A finished rollout stays finished when pods come and go later."""
    current = condition(deployment.status.conditions, PROGRESSING)
    return status.replicas == status.updated_replicas and current is not None and current.reason == NEW_AVAILABLE


def _progress(deployment: Deployment, new: ReplicaSet | None, status: DeploymentStatus, now: float) -> Conditions:
    what = f'ReplicaSet "{new.metadata.name}"' if new is not None else f'Deployment "{deployment.metadata.name}"'
    conditions = status.conditions
    if is_complete(deployment, status):
        message = f"{what} has successfully progressed."
        return set_condition(conditions, PROGRESSING, "True", NEW_AVAILABLE, message, now)
    if _went_on(deployment.status, status):
        message = f"{what} is progressing."
        return set_condition(conditions, PROGRESSING, "True", "ReplicaSetUpdated", message, now, again=True)
    if _timed_out(deployment, now):
        message = f"{what} has timed out progressing."
        return set_condition(conditions, PROGRESSING, "False", TIMED_OUT, message, now)
    return conditions


def _went_on(before: DeploymentStatus, after: DeploymentStatus) -> bool:
    return (
        after.updated_replicas > before.updated_replicas
        or after.replicas - after.updated_replicas < before.replicas - before.updated_replicas
        or after.ready_replicas > before.ready_replicas
        or after.available_replicas > before.available_replicas
    )


def _timed_out(deployment: Deployment, now: float) -> bool:
    current = condition(deployment.status.conditions, PROGRESSING)
    if current is None or current.reason == NEW_AVAILABLE:
        return False
    if current.reason == TIMED_OUT:
        return True
    updated = seconds_of(current.last_update_time)
    return updated is not None and updated + deployment.spec.progress_deadline_seconds < now


def _replica_failure(new: ReplicaSet | None, everything: Sequence[ReplicaSet]) -> Condition | None:
    """Return why pods cannot be made: of the new ReplicaSet first, else of any."""
    for each in [new, *everything] if new is not None else everything:
        failure = condition(each.status.conditions, REPLICA_FAILURE)
        if failure is not None:
            return failure
    return None
