"""The namespace controller: a namespace on its way out is emptied, kind by kind, and then let go.

What remains (pods that still run, objects with finalizers) is named in the namespace's conditions; the namespace is
looked at again when something in it goes. (pkg/controller/namespace/deletion, v1.36)
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from minikube_raw.api import meta, scheme
from minikube_raw.api.core import Namespace
from minikube_raw.api.meta import Condition, PartialObject, condition
from minikube_raw.api.scheme import Kind
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import timestamp
from minikube_raw.client.informer import Object
from minikube_raw.client.resources import NAMESPACES, resource_of
from minikube_raw.client.rest import Resource
from minikube_raw.controllers.controller import Context, Controller
from minikube_raw.controllers.garbage import collectable

FINALIZER = "kubernetes"
# Deletions come in crowds: one look after the crowd, not one per object; and one now and then without any.
_CROWD_SECONDS, _LOOK_SECONDS = 0.1, 15.0


class Remains(msgspec.Struct):
    """What a round of deletions left: objects per kind, finalizers, and errors."""

    kinds: Counter[str]
    finalizers: Counter[str]
    errors: list[str]

    @property
    def empty(self) -> bool:
        """Whether the namespace can go."""
        return not self.kinds and not self.errors


class NamespaceController:
    """Empties namespaces that are being deleted; `run` until cancelled."""

    def __init__(self, context: Context) -> None:
        self._client, self._clock = context.client, context.clock
        self._namespaces = context.informers.of(NAMESPACES)
        self._kinds = [kind for kind in scheme.KINDS if kind.namespaced and "deletecollection" in kind.verbs]
        self._controller = Controller("namespace", self._reconcile, context)
        self._namespaces.add_handler(self._namespace_changed)
        for kind in collectable(self._kinds):
            context.informers.of(resource_of(kind)).add_handler(self._content_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, name: str) -> float | None:
        namespace = self._namespaces.get(name)
        if namespace is None or namespace.metadata.deletion_timestamp is None:
            return None
        if FINALIZER not in namespace.spec.finalizers:
            return None
        remains = await self._delete_contents(name)
        await self._write_conditions(namespace, remains)
        if not remains.empty:
            return _LOOK_SECONDS
        await self._finalize(namespace)
        return None

    async def _delete_contents(self, namespace: str) -> Remains:
        remains = Remains(Counter(), Counter(), [])
        for kind in self._kinds:
            resource = Resource(kind, PartialObject)
            try:
                left = await self._client.list(resource, namespace)
                if any(each.metadata.deletion_timestamp is None for each in left.items):
                    await self._client.delete_collection(resource, namespace)
                    left = await self._client.list(resource, namespace)
            except StatusError as error:
                remains.errors.append(f"{error.message} for gvr: {_gvr(kind)}")
                continue
            if left.items:
                remains.kinds[kind.resource] = len(left.items)
            remains.finalizers.update(name for each in left.items for name in each.metadata.finalizers)
        return remains

    async def _write_conditions(self, namespace: Namespace, remains: Remains) -> None:
        before = namespace.status.conditions
        if remains.empty and not before:
            # Gone at the first attempt: nobody will read the conditions.
            return
        wished = [self._keep_time(before, entry) for entry in describe(remains)]
        plain = [meta.to_dict(entry) for entry in wished]
        if plain == [meta.to_dict(entry) for entry in before]:
            return
        body = {"metadata": {"uid": namespace.metadata.uid}, "status": {"conditions": plain}}
        await self._client.patch(NAMESPACES, namespace.metadata.name, body, subresource="status")

    def _keep_time(self, before: tuple[Condition, ...], entry: Condition) -> Condition:
        known = condition(before, entry.type)
        kept = known.last_transition_time if known is not None and known.status == entry.status else None
        return msgspec.structs.replace(entry, last_transition_time=kept or timestamp(self._clock.now()))

    async def _finalize(self, namespace: Namespace) -> None:
        metadata = namespace.metadata
        finalizers = [each for each in namespace.spec.finalizers if each != FINALIZER]
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": metadata.name, "uid": metadata.uid},
            "spec": {"finalizers": finalizers},
        }
        try:
            await self._client.update(NAMESPACES, metadata.name, body, subresource="finalize")
        except StatusError as error:
            if error.code != 404:
                raise

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is not None and new.metadata.deletion_timestamp is not None:
            self._controller.queue.add(new.metadata.name)

    def _content_changed(self, old: Object | None, new: Object | None) -> None:
        view = old if new is None else new
        namespace = self._namespaces.get(view.metadata.namespace) if view is not None else None
        if namespace is not None and namespace.metadata.deletion_timestamp is not None:
            self._controller.queue.add_after(namespace.metadata.name, _CROWD_SECONDS)


def describe(remains: Remains) -> list[Condition]:
    """Return the five conditions of a namespace being deleted, in Kubernetes' words and order."""
    return [
        _condition("DiscoveryFailure", False, "ResourcesDiscovered", "All resources successfully discovered"),
        _condition(
            "GroupVersionParsingFailure", False, "ParsedGroupVersions", "All legacy kube types successfully parsed"
        ),
        _content_failure(remains),
        _content_remaining(remains),
        _finalizers_remaining(remains),
    ]


def _content_failure(remains: Remains) -> Condition:
    if remains.errors:
        text = f"Failed to delete all resource types, {len(remains.errors)} remaining: {', '.join(remains.errors)}"
        return _condition("ContentFailure", True, "ContentDeletionFailed", text)
    text = "All content successfully deleted, may be waiting on finalization"
    return _condition("ContentFailure", False, "ContentDeleted", text)


def _content_remaining(remains: Remains) -> Condition:
    if remains.kinds:
        each = ", ".join(f"{kind} has {count} resource instances" for kind, count in sorted(remains.kinds.items()))
        return _condition("ContentRemaining", True, "SomeResourcesRemain", f"Some resources are remaining: {each}")
    return _condition("ContentRemaining", False, "ContentRemoved", "All content successfully removed")


def _finalizers_remaining(remains: Remains) -> Condition:
    if remains.finalizers:
        each = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(remains.finalizers.items()))
        text = f"Some content in the namespace has finalizers remaining: {each}"
        return _condition("FinalizersRemaining", True, "SomeFinalizersRemain", text)
    text = "All content-preserving finalizers finished"
    return _condition("FinalizersRemaining", False, "ContentHasNoFinalizers", text)


def _condition(kind: str, status: bool, reason: str, message: str) -> Condition:
    prefixed = kind if kind.startswith(("Content", "Finalizers")) and kind != "ContentFailure" else f"Deletion{kind}"
    return Condition(type=f"Namespace{prefixed}", status="True" if status else "False", reason=reason, message=message)


def _gvr(kind: Kind) -> str:
    return f"{kind.group}/{kind.version}, Resource={kind.plural}"
