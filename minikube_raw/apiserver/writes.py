"""Create, update and patch: from a decoded wish to a durable object.

Order, as in kube-apiserver: decode → default → merge → managedFields → admission → prepare → validate → compare-and-swap.
A write that changes nothing is not written; a lost race is tried again on the newer state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minikube_raw.api import status, times
from minikube_raw.apiserver import objects, ownership
from minikube_raw.apiserver.admission import Admission
from minikube_raw.apiserver.auth import User
from minikube_raw.apiserver.changes import Entry
from minikube_raw.apiserver.options import WriteOptions
from minikube_raw.apiserver.registry import Now, Resource
from minikube_raw.apiserver.resources.strategy import Object, Part
from minikube_raw.apiserver.routes import RequestInfo
from minikube_raw.store.kv import RevisionConflict

# How often a write that says no resourceVersion is tried again when somebody else was faster.
_TRIES = 20
_NAME_TRIES = 8


class Written(NamedTuple):
    """What a write left behind: the object as clients see it, whether it is new, and what to warn about."""

    value: bytes
    created: bool = False
    warnings: tuple[str, ...] = ()


class WriteContext(NamedTuple):
    """Who writes what, how and when; `applies`: by server-side apply, whose merge keeps managedFields itself."""

    user: User
    info: RequestInfo
    options: WriteOptions
    now: Now
    applies: bool = False


# From the current object (None: there is none) to the wanted one, already defaulted. Runs again after a lost race.
Merge = Callable[[Object | None], Object]


class Writer:
    """The generic writes over all resources."""

    def __init__(self, admission: Admission, now: Now) -> None:
        self._admission = admission
        self._now = now

    # --- create ---

    async def create(self, resource: Resource, obj: Object, context: WriteContext) -> Written:
        """Store a new object. Raises 400, 403, 404 (namespace), 409, 422."""
        objects.check_namespace(resource.kind, obj, context.info.namespace)
        for attempt in range(_NAME_TRIES):
            made, warnings = await self._prepare_new(resource, obj, context)
            key = resource.key(made["metadata"].get("namespace", ""), made["metadata"]["name"])
            try:
                return await self._put_new(resource, key, made, context, warnings)
            except RevisionConflict as conflict:
                if obj["metadata"].get("name") or attempt == _NAME_TRIES - 1:
                    raise await self._already_exists(resource, made["metadata"]["name"], conflict) from None
        raise AssertionError("unreachable")

    async def _prepare_new(
        self, resource: Resource, wish: Object, context: WriteContext
    ) -> tuple[Object, tuple[str, ...]]:
        strategy = resource.strategy
        obj = {**wish, "metadata": dict(wish["metadata"])}
        await self._admission.namespace(resource.kind, context.info.namespace, obj["metadata"].get("name", ""))
        moment = times.time(self._now())
        objects.start_metadata(obj, moment)
        strategy.default(obj)  # again: some defaults follow the name, which may just have been generated
        ownership.record_update(resource.kind, None, obj, context, moment)
        strategy.admit(obj)
        await self._admission.complete(resource.kind, obj)
        strategy.prepare_for_create(obj)
        self._admission.user(context.user, context.info, obj, None)
        causes = [*objects.validate_metadata(strategy, obj), *strategy.validate(obj), *strategy.validate_create(obj)]
        if causes:
            raise status.invalid(resource.kind.group, resource.kind.kind, obj["metadata"].get("name", ""), causes)
        return obj, tuple(strategy.warnings(obj))

    async def _put_new(
        self, resource: Resource, key: str, obj: Object, context: WriteContext, warnings: tuple[str, ...]
    ) -> Written:
        with self._admission.allocation(resource.kind, key, obj, keep=not context.options.dry_run):
            stored = self._encode(resource, obj)
            if context.options.dry_run:
                current = await resource.store.get(key)
                if current is not None:
                    raise RevisionConflict(key, current)
                return Written(resource.shown(stored, 0), True, warnings)
            revision = await resource.store.put(key, stored, expect=0, lazy=resource.strategy.is_lazy(obj))
        return Written(resource.shown(stored, revision), True, warnings)

    async def _already_exists(self, resource: Resource, name: str, conflict: RevisionConflict) -> status.StatusError:
        deleting = conflict.current is not None and b'"deletionTimestamp":"' in conflict.current.value
        prefix = "object is being deleted: " if deleting else ""
        return status.already_exists(resource.kind.group, resource.kind.plural, name, prefix)

    def _encode(self, resource: Resource, obj: Object) -> bytes:
        to_storage = resource.strategy.to_storage
        return objects.encode(to_storage(obj) if to_storage is not None else obj)

    # --- update ---

    async def update(
        self, resource: Resource, merge: Merge, context: WriteContext, *, part: Part | None = None, **how: bool
    ) -> Written:
        """Replace an object by what `merge` makes of it. Keywords: `upsert` creates what is missing, `status` changes the status
        only, `part` that part only, `as_is` trusts the merge (subresources that place or finalize).

        Raises 400, 403, 404, 409, 422.
        """
        for _ in range(_TRIES):
            await resource.watch_cache.fresh()
            entry = resource.cache.entries.get(resource.key(context.info.namespace, context.info.name))
            try:
                if entry is None:
                    if not how.get("upsert"):
                        raise resource.not_found(context.info.name)
                    return await self.create(resource, merge(None), context)
                return await self._update_once(resource, entry, merge, context, part, how)
            except RevisionConflict:
                continue
        raise status.conflict(resource.kind.group, resource.kind.plural, context.info.name)

    async def _update_once(
        self,
        resource: Resource,
        entry: Entry,
        merge: Merge,
        context: WriteContext,
        part: Part | None,
        how: dict[str, bool],
    ) -> Written:
        kind, strategy = resource.kind, resource.strategy
        old = resource.read(entry)
        new = merge(resource.read(entry))
        objects.check_name(new, context.info.name)
        objects.check_namespace(kind, new, context.info.namespace)
        self._check_version(resource, new, entry)
        objects.carry_metadata(new, old)
        if how.get("status"):
            strategy.prepare_status(new, old)
        elif part is not None:
            part.prepare(new, old)
        elif not how.get("as_is"):
            strategy.prepare_for_update(new, old)
        ownership.record_update(kind, old, new, context, times.time(self._now()))
        self._admission.user(context.user, context.info, new, old)
        if not how.get("as_is"):
            self._validate(resource, new, old, part, subresource=how.get("status", False))
        warnings = () if how.get("status") or how.get("as_is") else tuple(strategy.warnings(new))
        return await self._put(resource, entry, (new, old), context, warnings)

    def _check_version(self, resource: Resource, new: Object, entry: Entry) -> None:
        kind, wanted = resource.kind, new["metadata"].get("resourceVersion", "")
        if wanted and not wanted.isdigit():
            raise status.StatusError(500, "", f'strconv.ParseUint: parsing "{wanted}": invalid syntax')
        if wanted not in ("", "0", str(entry.revision)):
            raise status.conflict(kind.group, kind.plural, entry.name)

    def _validate(self, resource: Resource, new: Object, old: Object, part: Part | None, *, subresource: bool) -> None:
        strategy = resource.strategy
        causes = [*objects.validate_metadata_update(new, old), *objects.validate_metadata(strategy, new)]
        if subresource:
            causes += strategy.validate_status(new, old)
        else:
            rule = strategy.validate_update if part is None else part.validate
            causes += [*strategy.validate(new), *rule(new, old)]
        if causes:
            raise status.invalid(resource.kind.group, resource.kind.kind, old["metadata"]["name"], causes)

    async def _put(
        self,
        resource: Resource,
        entry: Entry,
        change: tuple[Object, Object],
        context: WriteContext,
        warnings: tuple[str, ...],
    ) -> Written:
        new, old = change
        if objects.same(new, old):
            return Written(resource.external(entry.value), warnings=warnings)
        with self._admission.allocation(resource.kind, entry.key, new, keep=not context.options.dry_run):
            stored = self._encode(resource, new)
            if context.options.dry_run:
                return Written(resource.shown(stored, entry.revision), warnings=warnings)
            if objects.is_finished(new) and resource.strategy.may_remove(new):
                revision = await resource.store.delete(entry.key, expect=entry.revision)
            else:
                lazy = resource.strategy.is_lazy(new)
                revision = await resource.store.put(entry.key, stored, expect=entry.revision, lazy=lazy)
        return Written(resource.shown(stored, revision), warnings=warnings)
