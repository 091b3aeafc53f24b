"""Deletion: preconditions, grace, finalizers and propagation, alone and over collections (registry/generic/registry/store.go).

An object goes at once, or is marked (deletionTimestamp) and goes when its owner and its finalizers have let go.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import NamedTuple

from minikube_raw.api import status, times
from minikube_raw.apiserver import objects
from minikube_raw.apiserver.admission import Admission
from minikube_raw.apiserver.auth import User
from minikube_raw.apiserver.changes import Entry
from minikube_raw.apiserver.options import DeleteOptions, ListOptions
from minikube_raw.apiserver.registry import Now, Resource
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.apiserver.routes import RequestInfo
from minikube_raw.store.kv import RevisionConflict

_TRIES = 20
_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"
# Kinds whose deletion answers with the object rather than with a Status (ReturnDeletedObject).
_RETURN_OBJECT = frozenset({"Pod", "Service", "ServiceAccount"})
# Deletions of one collection that run at once.
_CONCURRENT = 64


class Deleted(NamedTuple):
    """The answer's body, and the object's last state in clients' form."""

    body: bytes
    value: bytes


class Deleter:
    """Deletes objects of all resources."""

    def __init__(self, admission: Admission, now: Now) -> None:
        self._admission = admission
        self._now = now

    async def delete(self, resource: Resource, user: User, info: RequestInfo, options: DeleteOptions) -> Deleted:
        """Delete or mark one object. Raises 403, 404, 409."""
        for _ in range(_TRIES):
            entry = await resource.fresh_entry(info.namespace, info.name)
            try:
                return await self._delete_once(resource, user, info, options, entry)
            except RevisionConflict:
                continue
        raise status.conflict(resource.kind.group, resource.kind.plural, info.name)

    async def delete_collection(
        self, resource: Resource, user: User, info: RequestInfo, options: DeleteOptions, selection: ListOptions
    ) -> list[bytes]:
        """Delete what a list finds and return it; objects that vanish meanwhile do not matter."""
        page = await resource.page(info.namespace, selection)
        limit = asyncio.Semaphore(_CONCURRENT)

        async def one(entry: Entry) -> bytes | None:
            single = _named(info, entry)
            async with limit:
                try:
                    return (await self.delete(resource, user, single, options)).value
                except status.StatusError as error:
                    if error.code != 404:
                        raise
                    return None

        found = await asyncio.gather(*(one(entry) for entry in page.entries))
        return [value for value in found if value is not None]

    async def _delete_once(
        self, resource: Resource, user: User, info: RequestInfo, options: DeleteOptions, entry: Entry
    ) -> Deleted:
        kind, strategy = resource.kind, resource.strategy
        if refusal := strategy.delete_refusal(entry.name):
            raise status.forbidden(kind.group, kind.plural, entry.name, refusal)
        _check_preconditions(resource, entry, options)
        old = resource.read(entry)
        self._admission.user(user, info, None, old)
        new = resource.read(entry)
        self._mark(resource, new, options)
        value = resource.shown(self._encode(resource, new), entry.revision)
        if objects.is_finished(new) and strategy.may_remove(new):
            return await self._remove(resource, entry, new, options)
        if new == old:
            return Deleted(value, value)
        stored = self._encode(resource, new)
        if options.dry_run:
            return Deleted(value, value)
        revision = await resource.store.put(entry.key, stored, expect=entry.revision)
        value = resource.shown(stored, revision)
        return Deleted(value, value)

    async def _remove(self, resource: Resource, entry: Entry, last: Object, options: DeleteOptions) -> Deleted:
        revision = entry.revision
        if not options.dry_run:
            revision = await resource.store.delete(entry.key, expect=entry.revision)
        if resource.kind.kind in _RETURN_OBJECT:
            value = resource.shown(self._encode(resource, last), revision)
            return Deleted(value, value)
        value = resource.external(entry.value)
        return Deleted(status.success(entry.name, resource.kind.group, resource.kind.plural, entry.uid), value)

    def _mark(self, resource: Resource, obj: Object, options: DeleteOptions) -> None:
        """Set the marks of a deletion on the object: finalizers by policy, time and grace."""
        strategy, metadata = resource.strategy, obj["metadata"]
        _set_finalizers(metadata, options)
        seconds = strategy.grace(obj, options.grace_period_seconds)
        moment = self._now()
        if metadata.get("deletionTimestamp"):
            # A later deletion can only shorten the grace.
            held = metadata.get("deletionGracePeriodSeconds") or 0
            if options.grace_period_seconds is not None and seconds < held:
                begun = times.parse(metadata["deletionTimestamp"]) - timedelta(seconds=held)
                metadata["deletionTimestamp"] = times.time(begun + timedelta(seconds=seconds))
                metadata["deletionGracePeriodSeconds"] = seconds
            return
        metadata["deletionTimestamp"] = times.time(moment + timedelta(seconds=seconds))
        metadata["deletionGracePeriodSeconds"] = seconds
        if metadata.get("generation"):
            metadata["generation"] += 1
        strategy.before_delete(obj)

    def _encode(self, resource: Resource, obj: Object) -> bytes:
        to_storage = resource.strategy.to_storage
        return objects.encode(to_storage(obj) if to_storage is not None else obj)


def _named(info: RequestInfo, entry: Entry) -> RequestInfo:
    return RequestInfo(
        verb="delete",
        path=info.path,
        is_resource=True,
        group=info.group,
        version=info.version,
        namespace=entry.namespace,
        resource=info.resource,
        name=entry.name,
    )


def _check_preconditions(resource: Resource, entry: Entry, options: DeleteOptions) -> None:
    wanted, kind = options.preconditions or {}, resource.kind
    uid, version = wanted.get("uid"), wanted.get("resourceVersion")
    if uid is not None and uid != entry.uid:
        text = (
            f"the UID in the precondition ({uid}) does not match the UID in record ({entry.uid}). "
            "The object might have been deleted and then recreated"
        )
        raise status.conflict("", kind.kind, entry.name, text)
    if version is not None and version != str(entry.revision):
        text = (
            f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record "
            f"({entry.revision}). The object might have been modified"
        )
        raise status.conflict("", kind.kind, entry.name, text)


def _set_finalizers(metadata: Object, options: DeleteOptions) -> None:
    held: list[str] = metadata.get("finalizers") or []
    policy = options.propagation_policy
    if policy is None and options.orphan_dependents is not None:
        policy = "Orphan" if options.orphan_dependents else "Background"
    if policy is None:
        return  # what the object says about itself decides
    wanted = [name for name in held if name not in (_ORPHAN, _FOREGROUND)]
    if policy == "Orphan":
        wanted.append(_ORPHAN)
    elif policy == "Foreground":
        wanted.append(_FOREGROUND)
    if wanted:
        metadata["finalizers"] = wanted
    else:
        metadata.pop("finalizers", None)
