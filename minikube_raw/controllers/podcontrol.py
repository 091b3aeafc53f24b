"""Making and removing the pods of a controller: from its template, in growing batches, with an Event for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.api.status import StatusError
from minikube_raw.client.events import NORMAL, WARNING, EventRecorder, reference
from minikube_raw.client.informer import Object
from minikube_raw.client.resources import PODS
from minikube_raw.client.rest import Client, Resource
from minikube_raw.controllers.owners import controller_reference


class PodControl:
    """Creates and deletes pods on behalf of owners of one kind."""

    def __init__(self, client: Client, kind: Resource[Any], recorder: EventRecorder) -> None:
        self._client, self._kind, self._recorder = client, kind, recorder

    async def create(self, owner: Object, template: msgspec.Raw) -> Pod:
        """Create one pod from the owner's template. Raises StatusError, OSError after recording FailedCreate."""
        try:
            pod = await self._client.create(PODS, self._pod(owner, template), owner.metadata.namespace)
        except StatusError as error:
            if not _namespace_terminating(error):
                self._record(owner, WARNING, "FailedCreate", f"Error creating: {error.message}")
            raise
        self._record(owner, NORMAL, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")
        return pod

    async def delete(self, owner: Object, pod: Pod) -> None:
        """Ask for the pod's deletion; one already gone is fine. Raises StatusError, OSError."""
        metadata = pod.metadata
        try:
            await self._client.delete(PODS, metadata.name, metadata.namespace, uid=metadata.uid)
        except StatusError as error:
            if error.code != 404:
                self._record(owner, WARNING, "FailedDelete", f"Error deleting: {error.message}")
            raise
        self._record(owner, NORMAL, "SuccessfulDelete", f"Deleted pod: {metadata.name}")

    def _pod(self, owner: Object, template: msgspec.Raw) -> dict[str, Any]:
        wanted: dict[str, Any] = msgspec.json.decode(template)
        metadata = wanted.get("metadata") or {}
        kept = {name: metadata[name] for name in ("labels", "annotations", "finalizers") if metadata.get(name)}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": f"{owner.metadata.name}-",
                **kept,
                "ownerReferences": [controller_reference(self._kind, owner)],
            },
            "spec": wanted.get("spec") or {},
        }

    def _record(self, owner: Object, type_: str, reason: str, message: str) -> None:
        self._recorder.event(reference(self._kind, owner), type_, reason, message)


async def slow_start(count: int, step: Callable[[], Awaitable[object]]) -> list[Exception]:
    """Run `step` `count` times, in batches of 1, 2, 4, … at once; stop after a batch in which one failed.

    A quota or a refusal is met once, not five hundred times.
    """
    batch = 1
    while count > 0:
        results = await asyncio.gather(*(step() for _ in range(min(batch, count))), return_exceptions=True)
        failures = [result for result in results if isinstance(result, Exception)]
        if failures:
            return failures
        count -= len(results)
        batch *= 2
    return []


def _namespace_terminating(error: StatusError) -> bool:
    causes = error.details.causes if error.details else ()
    return any(cause.reason == "NamespaceTerminating" for cause in causes)
