"""The ReplicaSet controller: as many active pods as wished, no more and no fewer.

Flow: claim pods by selector → create or delete the difference → write the status. (pkg/controller/replicaset, v1.36)
"""

from __future__ import annotations

import asyncio
from typing import Any

from minikube_raw.api import meta, selectors
from minikube_raw.api.apps import ReplicaSet
from minikube_raw.api.core import Pod
from minikube_raw.api.meta import decode
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import timestamp
from minikube_raw.client.informer import key_of
from minikube_raw.client.resources import PODS, REPLICA_SETS
from minikube_raw.controllers.controller import Context, Controller
from minikube_raw.controllers.expectations import Expectations
from minikube_raw.controllers.owners import Claims, controller_uid, orphan_namespace
from minikube_raw.controllers.podcontrol import PodControl, slow_start
from minikube_raw.controllers.pods import available_in, is_active, is_ready, is_terminating, to_delete

BURST = 500
BY_CONTROLLER, ORPHANS = "controller", "orphans"


class ReplicaSetController:
    """Keeps ReplicaSets at their number of replicas; `run` until cancelled."""

    def __init__(self, context: Context) -> None:
        self._client, self._clock = context.client, context.clock
        self._sets = context.informers.of(REPLICA_SETS)
        self._pods = context.informers.of(PODS)
        self._sets.add_index(BY_CONTROLLER, controller_uid)
        self._pods.add_index(BY_CONTROLLER, controller_uid)
        self._pods.add_index(ORPHANS, orphan_namespace)
        self._expectations = Expectations(context.clock)
        self._control = PodControl(context.client, REPLICA_SETS, context.recorder("replicaset-controller"))
        self._controller = Controller("replicaset", self._reconcile, context)
        self._sets.add_handler(self._set_changed)
        self._pods.add_handler(self._pod_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, key: str) -> float | None:
        replica_set = self._sets.get(key)
        if replica_set is None:
            self._expectations.forget(key)
            return None
        pods = await self._claim(replica_set)
        active = [pod for pod in pods if is_active(pod)]
        failure: Exception | None = None
        if replica_set.metadata.deletion_timestamp is None and self._expectations.met(key):
            failure = await self._manage(key, replica_set, active)
        again = await self._write_status(replica_set, active, sum(map(is_terminating, pods)), failure)
        if failure is not None:
            raise failure
        return again

    async def _claim(self, replica_set: ReplicaSet) -> list[Pod]:
        selector = selectors.from_view(replica_set.spec.selector)
        claims = Claims(self._client, REPLICA_SETS, replica_set, selector)
        owned = self._pods.by_index(BY_CONTROLLER, replica_set.metadata.uid)
        orphans = [pod for pod in self._pods.by_index(ORPHANS, replica_set.metadata.namespace) if is_active(pod)]
        return await claims.claim(PODS, owned, orphans)

    async def _manage(self, key: str, replica_set: ReplicaSet, active: list[Pod]) -> Exception | None:
        """Create or delete the difference; return the first failure."""
        missing = replica_set.spec.replicas - len(active)
        if missing > 0:
            failures = await slow_start(min(missing, BURST), lambda: self._create(key, replica_set))
            return failures[0] if failures else None
        if missing < 0:
            excess = to_delete(active, min(-missing, BURST), self._related(replica_set), self._clock.now())
            results = await asyncio.gather(
                *(self._delete(key, replica_set, pod) for pod in excess), return_exceptions=True
            )
            return next((result for result in results if isinstance(result, Exception)), None)
        return None

    async def _create(self, key: str, replica_set: ReplicaSet) -> None:
        pod = await self._control.create(replica_set, replica_set.spec.template)
        if self._pods.get(key_of(pod)) is None:
            self._expectations.expect(key, key_of(pod))

    async def _delete(self, key: str, replica_set: ReplicaSet, pod: Pod) -> None:
        self._expectations.expect(key, pod.metadata.uid)
        try:
            await self._control.delete(replica_set, pod)
        except (StatusError, OSError) as error:
            self._expectations.seen(key, pod.metadata.uid)
            if not (isinstance(error, StatusError) and error.code == 404):
                raise

    def _related(self, replica_set: ReplicaSet) -> list[Pod]:
        """Return the pods of all ReplicaSets of the same Deployment: scaling down prefers crowded nodes."""
        owner = replica_set.metadata.controller
        siblings = self._sets.by_index(BY_CONTROLLER, owner.uid) if owner else (replica_set,)
        return [pod for each in siblings for pod in self._pods.by_index(BY_CONTROLLER, each.metadata.uid)]

    async def _write_status(
        self, replica_set: ReplicaSet, active: list[Pod], terminating: int, failure: Exception | None
    ) -> float | None:
        """Write what differs; return seconds until the next ready pod becomes available."""
        now = self._clock.now()
        waits = [available_in(pod, replica_set.spec.min_ready_seconds, now) for pod in active]
        wished = {
            "replicas": len(active),
            "fullyLabeledReplicas": self._fully_labeled(replica_set, active),
            "readyReplicas": sum(map(is_ready, active)),
            "availableReplicas": sum(1 for wait in waits if wait == 0),
            "terminatingReplicas": terminating,
            "observedGeneration": replica_set.metadata.generation,
            "conditions": _conditions(replica_set, len(active), failure, now),
        }
        current = meta.to_dict(replica_set.status)
        if any(wished[name] != current.get(name, [] if name == "conditions" else 0) for name in wished) or (
            replica_set.status.terminating_replicas is None
        ):
            await self._patch_status(replica_set, wished)
        pending = [wait for wait in waits if wait]
        return min(pending) if pending else None

    async def _patch_status(self, replica_set: ReplicaSet, wished: dict[str, Any]) -> None:
        # Go leaves zeros out of everything but replicas and the pointer terminatingReplicas; so do we.
        kept = ("replicas", "terminatingReplicas")
        status = {name: value if value or name in kept else None for name, value in wished.items()}
        metadata = replica_set.metadata
        body = {"metadata": {"uid": metadata.uid}, "status": status}
        await self._client.patch(REPLICA_SETS, metadata.name, body, metadata.namespace, subresource="status")

    def _fully_labeled(self, replica_set: ReplicaSet, active: list[Pod]) -> int:
        template = decode(replica_set.spec.template, meta.PartialObject)
        wanted = template.metadata.labels.items()
        return sum(1 for pod in active if wanted <= pod.metadata.labels.items())

    def _set_changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        changed = new if new is not None else old
        if changed is not None:
            self._controller.queue.add(key_of(changed))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new if new is not None else old
        if pod is None:
            return
        for view in (old, new):
            owner = self._owner_key(view)
            if owner is not None:
                self._expectations.seen(owner, key_of(pod))
                if new is None or new.metadata.deletion_timestamp is not None:
                    self._expectations.seen(owner, pod.metadata.uid)
                self._controller.queue.add(owner)
        if new is not None and new.metadata.controller is None and _may_match_others(old, new):
            self._look_for_adopters(new)

    def _owner_key(self, pod: Pod | None) -> str | None:
        owner = pod.metadata.controller if pod is not None else None
        if pod is None or owner is None or owner.kind != "ReplicaSet":
            return None
        key = f"{pod.metadata.namespace}/{owner.name}"
        replica_set = self._sets.get(key)
        return key if replica_set is not None and replica_set.metadata.uid == owner.uid else None

    def _look_for_adopters(self, pod: Pod) -> None:
        for key, replica_set in self._sets.cache.items():
            same = replica_set.metadata.namespace == pod.metadata.namespace
            if same and selectors.from_view(replica_set.spec.selector).matches(pod.metadata.labels):
                self._controller.queue.add(key)


def _may_match_others(old: Pod | None, new: Pod) -> bool:
    if old is None:
        return True
    return old.metadata.labels != new.metadata.labels or old.metadata.controller != new.metadata.controller


def _conditions(replica_set: ReplicaSet, active: int, failure: Exception | None, now: float) -> list[dict[str, Any]]:
    """ReplicaFailure stands as long as pods cannot be made or removed; it keeps its first time."""
    kept = [meta.to_dict(entry) for entry in replica_set.status.conditions if entry.type != "ReplicaFailure"]
    if failure is None:
        return kept
    before = meta.condition(replica_set.status.conditions, "ReplicaFailure")
    if before is not None:
        return [*kept, meta.to_dict(before)]
    reason = "FailedCreate" if active < replica_set.spec.replicas else "FailedDelete"
    entry = {"type": "ReplicaFailure", "status": "True", "reason": reason, "message": str(failure)}
    return [*kept, entry | {"lastTransitionTime": timestamp(now)}]
