"""How many replicas each ReplicaSet of a Deployment should have next. Pure arithmetic over what is there now.

The functions carry the names and the rounding of kube-controller-manager's (deployment/rolling.go, sync.go,
util/deployment_util.go, v1.36): surge is rounded up, unavailability down, and never both to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minikube_raw.api.apps import Deployment, ReplicaSet, RollingUpdateDeployment
from minikube_raw.api.meta import IntOrString
from minikube_raw.controllers.revisions import DESIRED_REPLICAS, MAX_REPLICAS, by_age


class Scaling(NamedTuple):
    """A ReplicaSet and the number of replicas it should get."""

    replica_set: ReplicaSet
    replicas: int


def is_rolling(deployment: Deployment) -> bool:
    """Whether it is updated step by step."""
    return deployment.spec.strategy.type == "RollingUpdate"


def max_surge(deployment: Deployment) -> int:
    """Return how many pods there may be beyond the wished number."""
    return _fenceposts(deployment)[0] if is_rolling(deployment) else 0


def max_unavailable(deployment: Deployment) -> int:
    """Return how many pods may be missing from the wished number."""
    if not is_rolling(deployment) or deployment.spec.replicas == 0:
        return 0
    return min(_fenceposts(deployment)[1], deployment.spec.replicas)


def _fenceposts(deployment: Deployment) -> tuple[int, int]:
    rules = deployment.spec.strategy.rolling_update or RollingUpdateDeployment()
    surge = _resolve(rules.max_surge, deployment.spec.replicas, round_up=True)
    unavailable = _resolve(rules.max_unavailable, deployment.spec.replicas, round_up=False)
    return surge, unavailable if surge or unavailable else 1


def _resolve(value: IntOrString, total: int, *, round_up: bool) -> int:
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%"))
    return -(-total * percent // 100) if round_up else total * percent // 100


def wished(replica_sets: Sequence[ReplicaSet]) -> int:
    """Return the replicas asked for, summed."""
    return sum(each.spec.replicas for each in replica_sets)


def active(replica_sets: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Return those that ask for replicas."""
    return [each for each in replica_sets if each.spec.replicas > 0]


def new_replicas(deployment: Deployment, everything: Sequence[ReplicaSet], current: int) -> int:
    """Return the size of the new ReplicaSet (now `current`) within what surge allows."""
    if not is_rolling(deployment):
        return deployment.spec.replicas
    room = deployment.spec.replicas + max_surge(deployment) - wished(everything)
    if room <= 0:
        return current
    return current + min(room, deployment.spec.replicas - current)


def reconcile_new(deployment: Deployment, everything: Sequence[ReplicaSet], new: ReplicaSet) -> Scaling | None:
    """Return the new ReplicaSet's next size, None when it is right already."""
    if new.spec.replicas == deployment.spec.replicas:
        return None
    if new.spec.replicas > deployment.spec.replicas:
        return Scaling(new, deployment.spec.replicas)
    size = new_replicas(deployment, everything, new.spec.replicas)
    return Scaling(new, size) if size != new.spec.replicas else None


def reconcile_old(deployment: Deployment, old: Sequence[ReplicaSet], new: ReplicaSet) -> list[Scaling]:
    """Return the next sizes of old ReplicaSets: broken pods go first, then as many as availability allows."""
    everything = [*old, new]
    least = deployment.spec.replicas - max_unavailable(deployment)
    new_unavailable = new.spec.replicas - new.status.available_replicas
    budget = wished(everything) - least - new_unavailable
    if wished(old) == 0 or budget <= 0:
        return []
    sizes = {each.metadata.uid: each.spec.replicas for each in old}
    for each in by_age(old):
        broken = each.spec.replicas - each.status.available_replicas
        gone = min(budget, broken) if broken > 0 else 0
        sizes[each.metadata.uid] -= gone
        budget -= gone
    spare = sum(each.status.available_replicas for each in everything) - least
    for each in by_age(old):
        gone = max(min(sizes[each.metadata.uid], spare), 0)
        sizes[each.metadata.uid] -= gone
        spare -= gone
    return [Scaling(each, sizes[each.metadata.uid]) for each in old if sizes[each.metadata.uid] != each.spec.replicas]


def is_scaling_event(deployment: Deployment, everything: Sequence[ReplicaSet]) -> bool:
    """Whether the wished number changed since the ReplicaSets were last sized."""
    desired = [each.metadata.annotations.get(DESIRED_REPLICAS, "") for each in active(everything)]
    return any(text.isdecimal() and int(text) != deployment.spec.replicas for text in desired)


def scale(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> list[Scaling]:
    """Return the sizes after the wished number changed: in proportion while a rollout is under way."""
    everything = [*old, new] if new is not None else list(old)
    only = _active_or_latest(new, old)
    if only is not None:
        return [Scaling(only, deployment.spec.replicas)] if only.spec.replicas != deployment.spec.replicas else []
    if new is not None and _is_saturated(deployment, new):
        return [Scaling(each, 0) for each in active(old)]
    return _proportional(deployment, active(everything)) if is_rolling(deployment) else []


def _active_or_latest(new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> ReplicaSet | None:
    running = active([*old, new] if new is not None else old)
    if len(running) > 1:
        return None
    if running:
        return running[0]
    return new if new is not None else next(reversed(by_age(old)), None)


def _is_saturated(deployment: Deployment, new: ReplicaSet) -> bool:
    desired = new.metadata.annotations.get(DESIRED_REPLICAS, "")
    size = deployment.spec.replicas
    return desired == str(size) and new.spec.replicas == size and new.status.available_replicas == size


def _proportional(deployment: Deployment, running: list[ReplicaSet]) -> list[Scaling]:
    allowed = deployment.spec.replicas + max_surge(deployment) if deployment.spec.replicas else 0
    to_add = allowed - wished(running)
    growing = to_add > 0
    ordered = by_age(running)
    if growing:
        ordered.reverse()
    ordered.sort(key=lambda each: -each.spec.replicas)
    added = 0
    sizes = []
    for each in ordered:
        share = _share(deployment, each, to_add, added) if to_add else 0
        added += share
        sizes.append(each.spec.replicas + share)
    if sizes and to_add:
        sizes[0] = max(sizes[0] + to_add - added, 0)
    return [Scaling(each, size) for each, size in zip(ordered, sizes, strict=True)]


def _share(deployment: Deployment, replica_set: ReplicaSet, to_add: int, added: int) -> int:
    if to_add == added:
        return 0
    fraction = _fraction(deployment, replica_set)
    rest = to_add - added
    return min(fraction, rest) if to_add > 0 else max(fraction, rest)


def _fraction(deployment: Deployment, replica_set: ReplicaSet) -> int:
    if deployment.spec.replicas == 0:
        return -replica_set.spec.replicas
    text = replica_set.metadata.annotations.get(MAX_REPLICAS, "")
    before = int(text) if text.isdecimal() and int(text) else deployment.status.replicas
    if not before:
        return 0
    after = deployment.spec.replicas + max_surge(deployment)
    # Half up, as Go's integer.RoundToInt32 does; Python's round would go to the even number.
    return int(replica_set.spec.replicas * after / before + 0.5) - replica_set.spec.replicas
