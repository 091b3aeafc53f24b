"""The Deployment controller: ReplicaSets of the present and of earlier templates, sized step by step.

Flow: claim ReplicaSets → one step (pause, scale, roll, recreate) → status. Every step is decided by `rollout` from what
is there; the next change of a ReplicaSet brings the Deployment back here. (pkg/controller/deployment, v1.36)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from minikube_raw.api import selectors
from minikube_raw.api.apps import Deployment, DeploymentStatus, ReplicaSet
from minikube_raw.api.core import Pod
from minikube_raw.api.meta import LabelSelector, condition
from minikube_raw.api.status import StatusError
from minikube_raw.client.events import NORMAL, WARNING, reference
from minikube_raw.client.informer import key_of
from minikube_raw.client.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from minikube_raw.controllers import deploymentstatus, revisions, rollout
from minikube_raw.controllers.controller import Context, Controller
from minikube_raw.controllers.deploymentstatus import PAUSED, PROGRESSING, TIMED_OUT
from minikube_raw.controllers.owners import Claims, controller_reference, controller_uid, orphan_namespace
from minikube_raw.controllers.pods import is_terminal

BY_CONTROLLER, ORPHANS = "controller", "orphans"


class _Rollout(NamedTuple):
    """A Deployment with its ReplicaSets: `new` has the present template, `old` all others."""

    deployment: Deployment
    new: ReplicaSet | None
    old: list[ReplicaSet]

    @property
    def everything(self) -> list[ReplicaSet]:
        return [*self.old, self.new] if self.new is not None else self.old


class DeploymentController:
    """Rolls Deployments out; `run` until cancelled."""

    def __init__(self, context: Context) -> None:
        self._client, self._clock = context.client, context.clock
        self._deployments = context.informers.of(DEPLOYMENTS)
        self._sets = context.informers.of(REPLICA_SETS)
        self._pods = context.informers.of(PODS)
        self._sets.add_index(BY_CONTROLLER, controller_uid)
        self._sets.add_index(ORPHANS, orphan_namespace)
        self._pods.add_index(BY_CONTROLLER, controller_uid)
        self._recorder = context.recorder("deployment-controller")
        self._controller = Controller("deployment", self._reconcile, context)
        self._deployments.add_handler(self._deployment_changed)
        self._sets.add_handler(self._set_changed)
        self._pods.add_handler(self._pod_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, key: str) -> float | None:
        deployment = self._deployments.get(key)
        if deployment is None:
            return None
        if deployment.spec.selector == LabelSelector():
            message = "This deployment is selecting all pods. A non-empty selector is required."
            self._record(deployment, WARNING, "SelectingAll", message)
            return None
        sets = await self._claim(deployment)
        if deployment.metadata.deletion_timestamp is not None:
            return await self._sync_status(self._sort(deployment, sets))
        deployment = await self._note_pause(deployment)
        state = self._sort(deployment, sets)
        if deployment.spec.paused or rollout.is_scaling_event(deployment, state.everything):
            return await self._scale(state)
        if rollout.is_rolling(deployment):
            return await self._roll(state)
        return await self._recreate(state)

    async def _claim(self, deployment: Deployment) -> list[ReplicaSet]:
        selector = selectors.from_view(deployment.spec.selector)
        claims = Claims(self._client, DEPLOYMENTS, deployment, selector)
        owned = self._sets.by_index(BY_CONTROLLER, deployment.metadata.uid)
        return await claims.claim(REPLICA_SETS, owned, self._sets.by_index(ORPHANS, deployment.metadata.namespace))

    @staticmethod
    def _sort(deployment: Deployment, sets: Sequence[ReplicaSet]) -> _Rollout:
        new = revisions.find_new(deployment, sets)
        return _Rollout(deployment, new, [each for each in sets if each is not new])

    # Steps.

    async def _roll(self, state: _Rollout) -> float | None:
        state = await self._with_new(state)
        if state.new is None:
            return None
        growth = rollout.reconcile_new(state.deployment, state.everything, state.new)
        steps = [growth] if growth is not None else rollout.reconcile_old(state.deployment, state.old, state.new)
        if steps:
            await self._apply(state.deployment, steps)
        elif deploymentstatus.is_complete(state.deployment, state.deployment.status):
            await self._clean_up(state)
        return await self._sync_progress(state)

    async def _recreate(self, state: _Rollout) -> float | None:
        """All old pods go, and are gone, before the first new one comes."""
        steps = [rollout.Scaling(each, 0) for each in rollout.active(state.old)]
        if steps:
            await self._apply(state.deployment, steps)
            return await self._sync_progress(state)
        if self._old_pods_live(state):
            return await self._sync_progress(state)
        state = await self._with_new(state)
        if state.new is None:
            return None
        if state.new.spec.replicas != state.deployment.spec.replicas:
            await self._apply(state.deployment, [rollout.Scaling(state.new, state.deployment.spec.replicas)])
        if deploymentstatus.is_complete(state.deployment, state.deployment.status):
            await self._clean_up(state)
        return await self._sync_progress(state)

    async def _scale(self, state: _Rollout) -> float | None:
        """Follow a changed number of replicas; a paused Deployment does nothing else."""
        if state.new is not None:
            state = await self._with_new(state)
        await self._apply(state.deployment, rollout.scale(state.deployment, state.new, state.old))
        if state.deployment.spec.paused:
            await self._clean_up(state)
        return await self._sync_status(state)

    def _old_pods_live(self, state: _Rollout) -> bool:
        return any(
            not is_terminal(pod) for each in state.old for pod in self._pods.by_index(BY_CONTROLLER, each.metadata.uid)
        )

    # The new ReplicaSet.

    async def _with_new(self, state: _Rollout) -> _Rollout:
        """Return the state with a current ReplicaSet that carries the newest revision, made when there is none.

        `new` stays None when the name is taken by another template; the Deployment comes back with another hash.
        """
        deployment = state.deployment
        wanted_revision = revisions.newest_revision(state.old) + 1
        if state.new is None:
            return await self._create_new(state, wanted_revision)
        new = await self._annotate(deployment, state.new, wanted_revision)
        status = deployment.status
        if deploymentstatus.has_deadline(deployment) and condition(status.conditions, PROGRESSING) is None:
            message = f'Found new replica set "{new.metadata.name}"'
            status = self._progressing(status, "True", "FoundNewReplicaSet", message)
        deployment = await self._set_revision(deployment, revisions.revision(new), status)
        return _Rollout(deployment, new, state.old)

    async def _annotate(self, deployment: Deployment, new: ReplicaSet, wanted_revision: int) -> ReplicaSet:
        annotations = revisions.annotations_for(deployment, new, wanted_revision)
        body: dict[str, Any] = {}
        if annotations != new.metadata.annotations:
            body["metadata"] = {"annotations": annotations}
        if new.spec.min_ready_seconds != deployment.spec.min_ready_seconds:
            body["spec"] = {"minReadySeconds": deployment.spec.min_ready_seconds}
        return await self._patch_set(new, body) if body else new

    async def _create_new(self, state: _Rollout, wanted_revision: int) -> _Rollout:
        deployment = state.deployment
        replicas = rollout.new_replicas(deployment, state.old, 0)
        limits = (deployment.spec.replicas, deployment.spec.replicas + rollout.max_surge(deployment))
        annotations = revisions.annotations_for(deployment, None, wanted_revision, replicas=limits)
        owner = controller_reference(DEPLOYMENTS, deployment)
        body = revisions.new_replica_set(deployment, owner, replicas, annotations)
        try:
            new = await self._client.create(REPLICA_SETS, body, deployment.metadata.namespace)
        except StatusError as error:
            return await self._not_created(state, body["metadata"]["name"], wanted_revision, error)
        if replicas:
            self._record_scaling(deployment, new, 0, replicas)
        status = deployment.status
        if deploymentstatus.has_deadline(deployment):
            message = f'Created new replica set "{new.metadata.name}"'
            status = self._progressing(status, "True", "NewReplicaSetCreated", message)
        deployment = await self._set_revision(deployment, wanted_revision, status)
        return _Rollout(deployment, new, state.old)

    async def _not_created(self, state: _Rollout, name: str, wanted_revision: int, error: StatusError) -> _Rollout:
        deployment = state.deployment
        if error.reason == "AlreadyExists":
            found = await self._client.get(REPLICA_SETS, name, deployment.metadata.namespace)
            owner = found.metadata.controller
            if owner and owner.uid == deployment.metadata.uid and revisions.same_template(deployment, found):
                # Made a moment ago; our copy of the list did not show it yet.
                deployment = await self._set_revision(deployment, wanted_revision, deployment.status)
                return _Rollout(deployment, found, state.old)
            collisions = (deployment.status.collision_count or 0) + 1
            status = msgspec.structs.replace(deployment.status, collision_count=collisions)
            return _Rollout(await self._write_status(deployment, status), None, state.old)
        if deploymentstatus.has_deadline(deployment):
            message = f'Failed to create new replica set "{name}": {error.message}'
            status = self._progressing(deployment.status, "False", "ReplicaSetCreateError", message)
            await self._write_status(deployment, status)
        raise error

    async def _set_revision(self, deployment: Deployment, revision: int, status: DeploymentStatus) -> Deployment:
        annotations = {revisions.REVISION: str(revision)}
        known = deployment.metadata.annotations.get(revisions.REVISION) == str(revision)
        return await self._write_status(deployment, status, {} if known else annotations)

    # Writing.

    async def _apply(self, deployment: Deployment, steps: Sequence[rollout.Scaling]) -> None:
        limits = {
            revisions.DESIRED_REPLICAS: str(deployment.spec.replicas),
            revisions.MAX_REPLICAS: str(deployment.spec.replicas + rollout.max_surge(deployment)),
        }
        for replica_set, size in steps:
            before = replica_set.spec.replicas
            annotated = limits.items() <= replica_set.metadata.annotations.items()
            if before == size and annotated:
                continue
            scaled = await self._patch_set(
                replica_set, {"metadata": {"annotations": limits}, "spec": {"replicas": size}}
            )
            if before != size:
                self._record_scaling(deployment, scaled, before, size)

    async def _patch_set(self, replica_set: ReplicaSet, body: dict[str, Any]) -> ReplicaSet:
        """Patch what was looked at and nothing newer: a size computed from an old copy would undo another step."""
        metadata = replica_set.metadata
        precondition = {"resourceVersion": metadata.resource_version}
        body = body | {"metadata": body.get("metadata", {}) | precondition}
        return await self._client.patch(REPLICA_SETS, metadata.name, body, metadata.namespace)

    async def _clean_up(self, state: _Rollout) -> None:
        for replica_set in revisions.to_clean_up(state.deployment, state.old):
            metadata = replica_set.metadata
            try:
                await self._client.delete(
                    REPLICA_SETS, metadata.name, metadata.namespace, propagation="Background", uid=metadata.uid
                )
            except StatusError as error:
                if error.code != 404:
                    raise

    async def _note_pause(self, deployment: Deployment) -> Deployment:
        """Progress is not measured while paused: the condition says so."""
        current = condition(deployment.status.conditions, PROGRESSING)
        if not deploymentstatus.has_deadline(deployment) or (current is not None and current.reason == TIMED_OUT):
            return deployment
        noted = current is not None and current.reason == PAUSED
        if deployment.spec.paused and not noted:
            status = self._progressing(deployment.status, "Unknown", PAUSED, "Deployment is paused")
        elif not deployment.spec.paused and noted:
            status = self._progressing(deployment.status, "Unknown", "DeploymentResumed", "Deployment is resumed")
        else:
            return deployment
        return await self._write_status(deployment, status)

    async def _sync_status(self, state: _Rollout) -> float | None:
        status = deploymentstatus.calculate(state.deployment, state.new, state.everything, self._clock.now())
        await self._write_status(state.deployment, status)
        return None

    async def _sync_progress(self, state: _Rollout) -> float | None:
        now = self._clock.now()
        status = deploymentstatus.with_progress(state.deployment, state.new, state.everything, now)
        await self._write_status(state.deployment, status)
        return deploymentstatus.seconds_until_deadline(state.deployment, status, now)

    async def _write_status(
        self, deployment: Deployment, status: DeploymentStatus, annotations: dict[str, str] | None = None
    ) -> Deployment:
        """Write what differs; the status subresource takes annotations along, as in Kubernetes."""
        changes = deploymentstatus.changes(deployment.status, status)
        if not changes and not annotations:
            return deployment
        metadata = deployment.metadata
        body: dict[str, Any] = {"metadata": {"resourceVersion": metadata.resource_version}}
        if annotations:
            body["metadata"]["annotations"] = annotations
        if changes:
            body["status"] = changes
        return await self._client.patch(DEPLOYMENTS, metadata.name, body, metadata.namespace, subresource="status")

    def _progressing(self, status: DeploymentStatus, value: str, reason: str, message: str) -> DeploymentStatus:
        conditions = deploymentstatus.set_condition(
            status.conditions, PROGRESSING, value, reason, message, self._clock.now()
        )
        return msgspec.structs.replace(status, conditions=conditions)

    def _record_scaling(self, deployment: Deployment, replica_set: ReplicaSet, before: int, after: int) -> None:
        direction = "up" if after > before else "down"
        message = f"Scaled {direction} replica set {replica_set.metadata.name} from {before} to {after}"
        self._record(deployment, NORMAL, "ScalingReplicaSet", message)

    def _record(self, deployment: Deployment, type_: str, reason: str, message: str) -> None:
        self._recorder.event(reference(DEPLOYMENTS, deployment), type_, reason, message)

    # Looking again.

    def _deployment_changed(self, old: Deployment | None, new: Deployment | None) -> None:
        changed = new if new is not None else old
        if changed is not None:
            self._controller.queue.add(key_of(changed))

    def _set_changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        for view in (old, new):
            owner = view.metadata.controller if view is not None else None
            if view is not None and owner is not None and owner.kind == "Deployment":
                self._controller.queue.add(f"{view.metadata.namespace}/{owner.name}")
        if new is not None and new.metadata.controller is None:
            for key, deployment in self._deployments.cache.items():
                same = deployment.metadata.namespace == new.metadata.namespace
                if same and selectors.from_view(deployment.spec.selector).matches(new.metadata.labels):
                    self._controller.queue.add(key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Recreate waits for the last old pod to end."""
        pod = old if old is not None else new
        if pod is None or not (new is None or is_terminal(new)):
            return
        owner = pod.metadata.controller
        replica_set = self._sets.get(f"{pod.metadata.namespace}/{owner.name}") if owner is not None else None
        if replica_set is not None:
            self._set_changed(None, replica_set)
