"""The garbage collector: what all owners have left goes too; foreground and orphan deletions are carried out.

Background: the owner is gone, its dependents follow. Foreground: the owner waits (finalizer foregroundDeletion) for those
dependents that block it. Orphan: the owner waits (finalizer orphan) until it is nobody's owner any more.
(pkg/controller/garbagecollector, v1.36)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from minikube_raw.api import scheme
from minikube_raw.api.meta import OwnerReference, PartialObject
from minikube_raw.api.scheme import Kind
from minikube_raw.api.status import StatusError
from minikube_raw.client.informer import Informer, Object
from minikube_raw.client.resources import resource_of
from minikube_raw.client.rest import PatchType, Resource
from minikube_raw.controllers.controller import Context, Controller
from minikube_raw.controllers.ownergraph import FOREGROUND, ORPHAN, OwnerGraph, Vertex

_NEEDED_VERBS = {"list", "watch", "delete"}
# A dependent may be seen before its owner; the first look at it waits a moment rather than ask the server.
_SETTLE_SECONDS = 0.2


def collectable(kinds: Iterable[Kind]) -> list[Kind]:
    """Return the kinds whose objects can own and be owned; Events end by themselves."""
    return [kind for kind in kinds if set(kind.verbs) >= _NEEDED_VERBS and kind.plural != "events"]


class GarbageCollector:
    """Collects over all collectable kinds; `run` until cancelled. Keys are uids."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._graph = OwnerGraph()
        self._controller = Controller("garbagecollector", self._reconcile, context, workers=10)
        for kind in collectable(scheme.KINDS):
            self._follow(context.informers.of(resource_of(kind)))

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    def _follow(self, informer: Informer[Any]) -> None:
        resource = informer.resource

        def changed(old: Object | None, new: Object | None) -> None:
            if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
                self._gone(old.metadata.uid)
            if new is not None:
                self._seen(resource, new)

        informer.add_handler(changed)

    def _seen(self, resource: Resource[Any], view: Object) -> None:
        vertex = self._graph.put(resource, view.metadata)
        if vertex.waits_for_dependents:
            for dependent in self._graph.dependents(vertex):
                self._controller.queue.add(dependent.uid)
        if vertex.orphans_dependents or vertex.waits_for_dependents:
            self._controller.queue.add(vertex.uid)
        elif vertex.metadata.owner_references and not self._has_present_owner(vertex):
            self._controller.queue.add_after(vertex.uid, _SETTLE_SECONDS)

    def _has_present_owner(self, vertex: Vertex) -> bool:
        owners = [self._graph.get(owner.uid) for owner in vertex.metadata.owner_references]
        return all(owner is not None and owner.present and not owner.waits_for_dependents for owner in owners)

    def _gone(self, uid: str) -> None:
        vertex = self._graph.get(uid)
        waiting = [owner.uid for owner in vertex.metadata.owner_references] if vertex is not None else []
        for dependent in self._graph.remove(uid):
            self._controller.queue.add(dependent)
        for owner in waiting:
            found = self._graph.get(owner)
            if found is not None and found.waits_for_dependents:
                self._controller.queue.add(owner)

    async def _reconcile(self, uid: str) -> float | None:
        vertex = self._graph.get(uid)
        if vertex is None or vertex.resource is None:
            return None
        if vertex.orphans_dependents:
            await self._orphan_dependents(vertex, vertex.resource)
        elif vertex.waits_for_dependents:
            await self._finish_foreground(vertex, vertex.resource)
        if vertex.metadata.owner_references:
            await self._collect(vertex, vertex.resource)
        return None

    async def _orphan_dependents(self, owner: Vertex, resource: Resource[Any]) -> None:
        """Take the owner out of its dependents' references, then let it go."""
        dependents = self._graph.dependents(owner)
        await asyncio.gather(*(self._drop_owners(each, [owner.uid]) for each in dependents))
        await self._remove_finalizer(owner, resource, ORPHAN)

    async def _finish_foreground(self, owner: Vertex, resource: Resource[Any]) -> None:
        if not self._graph.blocking(owner):
            await self._remove_finalizer(owner, resource, FOREGROUND)

    async def _collect(self, vertex: Vertex, resource: Resource[Any]) -> None:
        """Delete an object none of whose owners stands; keep it, less the dead references, when one does."""
        metadata = vertex.metadata
        if vertex.being_deleted and not vertex.waits_for_dependents:
            return
        owners: dict[str, list[str]] = {"solid": [], "dangling": [], "waiting": []}
        for owner in metadata.owner_references:
            owners[await self._state_of(owner, metadata.namespace)].append(owner.uid)
        if owners["solid"]:
            await self._drop_owners(vertex, owners["dangling"] + owners["waiting"])
        elif owners["waiting"] and vertex.dependents and not vertex.waits_for_dependents:
            await self._break_cycles(vertex)
            await self._delete(vertex, resource, "Foreground")
        elif not vertex.waits_for_dependents:
            await self._delete(vertex, resource, _policy(vertex))

    async def _state_of(self, owner: OwnerReference, namespace: str) -> str:
        """Return whether an owner is solid, dangling (gone) or waiting (deleted in the foreground)."""
        known = self._graph.get(owner.uid)
        if known is not None and known.present:
            return "waiting" if known.waits_for_dependents else "solid"
        return "solid" if await self._exists(owner, namespace) else "dangling"

    async def _exists(self, owner: OwnerReference, namespace: str) -> bool:
        """Ask the server for an owner we have not seen: it may be new, of a kind not held here, or never have been."""
        kind = scheme.by_api_version(owner.api_version, owner.kind)
        if kind is None:
            # A kind we cannot look up: deleting on a guess could not be undone.
            return True
        try:
            found = await self._client.get(
                Resource(kind, PartialObject), owner.name, namespace if kind.namespaced else ""
            )
        except StatusError as error:
            if error.code == 404:
                return False
            raise
        return found.metadata.uid == owner.uid

    async def _break_cycles(self, vertex: Vertex) -> None:
        """Owners that wait for each other would wait for ever: a dependent that waits too blocks nobody."""
        for dependent in self._graph.dependents(vertex):
            reference = dependent.owner(vertex.uid)
            if dependent.waits_for_dependents and reference is not None and reference.block_owner_deletion:
                await self._patch_owner(dependent, {"uid": vertex.uid, "blockOwnerDeletion": False})

    async def _delete(self, vertex: Vertex, resource: Resource[Any], policy: str) -> None:
        metadata = vertex.metadata
        try:
            await self._client.delete(
                resource,
                metadata.name,
                metadata.namespace,
                propagation=policy,
                uid=metadata.uid,
                resource_version=metadata.resource_version,
            )
        except StatusError as error:
            if error.code != 404:
                raise

    async def _drop_owners(self, vertex: Vertex, uids: list[str]) -> None:
        for uid in uids:
            await self._patch_owner(vertex, {"$patch": "delete", "uid": uid})

    async def _patch_owner(self, vertex: Vertex, entry: dict[str, Any]) -> None:
        if vertex.resource is None:
            return
        metadata = vertex.metadata
        body = {"metadata": {"uid": metadata.uid, "ownerReferences": [entry]}}
        try:
            await self._client.patch(vertex.resource, metadata.name, body, metadata.namespace, kind=PatchType.STRATEGIC)
        except StatusError as error:
            if error.code != 404:
                raise

    async def _remove_finalizer(self, vertex: Vertex, resource: Resource[Any], finalizer: str) -> None:
        metadata = vertex.metadata
        kept = [each for each in metadata.finalizers if each != finalizer]
        body = {"metadata": {"resourceVersion": metadata.resource_version, "finalizers": kept or None}}
        try:
            await self._client.patch(resource, metadata.name, body, metadata.namespace)
        except StatusError as error:
            if error.code != 404:
                raise


def _policy(vertex: Vertex) -> str:
    """Return how to delete: as the object's own finalizers say, else in the background."""
    if ORPHAN in vertex.metadata.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in vertex.metadata.finalizers else "Background"
