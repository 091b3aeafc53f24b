"""The served kinds: strategy, cache and the generic reads. Writes are in `writes`, deletions in `deletion`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime

import msgspec

from minikube_raw.api import status
from minikube_raw.apiserver.cache import KindCache, WatchCache
from minikube_raw.apiserver.changes import Entry, splice
from minikube_raw.apiserver.frames import Encode
from minikube_raw.apiserver.lists import Lister, Page, Selects, parse_revision, selection
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.options import ListOptions
from minikube_raw.apiserver.resources.strategy import Object, Strategy
from minikube_raw.apiserver.routes import RequestInfo
from minikube_raw.apiserver.watches import WatchRequest, WatchServer
from minikube_raw.store.kv import Store

Now = Callable[[], datetime]


class Resource:
    """One served kind in one version: its strategy over the cache that all versions of it share."""

    def __init__(self, strategy: Strategy, cache: KindCache, watch_cache: WatchCache, store: Store) -> None:
        self.strategy = strategy
        self.kind = strategy.kind
        self.cache = cache
        self.watch_cache = watch_cache
        self.store = store
        self._lister = Lister(store, watch_cache, cache)
        self._watches = WatchServer(watch_cache, cache)

    def key(self, namespace: str, name: str) -> str:
        """Return an object's store key."""
        return self.kind.key(namespace, name)

    def not_found(self, name: str) -> status.StatusError:
        """Return the 404 of a missing object."""
        return status.not_found(self.kind.group, self.kind.plural, name)

    def entry(self, namespace: str, name: str) -> Entry:
        """Return an object as the cache has it. Raises 404."""
        entry = self.cache.entries.get(self.key(namespace, name))
        if entry is None:
            raise self.not_found(name)
        return entry

    async def fresh_entry(self, namespace: str, name: str) -> Entry:
        """Return an object as of every write acknowledged so far. Raises 404."""
        await self.watch_cache.fresh()
        return self.entry(namespace, name)

    def external(self, value: bytes) -> bytes:
        """Return an object's bytes in this version."""
        if self.strategy.from_storage is None:
            return value
        return msgspec.json.encode(self.strategy.from_storage(decode(value)))

    def read(self, entry: Entry) -> Object:
        """Decode an object, with its resourceVersion, in this version: a private copy to change."""
        obj = decode(entry.value)
        return obj if self.strategy.from_storage is None else self.strategy.from_storage(obj)

    def shown(self, stored: bytes, revision: int) -> bytes:
        """Return stored bytes as clients of this version see them; revision 0 (a dry run) shows none."""
        return self.external(splice(stored, revision) if revision else stored)

    async def get(self, namespace: str, name: str, resource_version: str = "") -> bytes:
        """Return an object's bytes, fresh unless a resourceVersion says how old is good enough. Raises 400, 404, 504."""
        if resource_version:
            await self.watch_cache.wait(parse_revision(resource_version))
        else:
            await self.watch_cache.fresh()
        return self.external(self.entry(namespace, name).value)

    def prefix(self, namespace: str, options: ListOptions) -> str:
        """Return the narrowest prefix that holds what `options` can select."""
        name = options.fields.exact("metadata.name")
        if name and (namespace or not self.kind.namespaced) and "/" not in name:
            return self.key(namespace, name)
        return self.kind.prefix(namespace)

    def selects(self, options: ListOptions) -> Selects:
        """Return the test of the selectors. Raises 400."""
        return selection(options, self.strategy.selectable, self.strategy.field_aliases)

    async def page(self, namespace: str, options: ListOptions) -> Page:
        """Return a page of objects. Raises 400, 410, 504."""
        selects = self.selects(options)
        prefix = self.kind.prefix(namespace)
        if not options.continue_token and not options.limit:
            prefix = self.prefix(namespace, options)
        return await self._lister.list(prefix, options, selects)

    async def watch(
        self, namespace: str, options: ListOptions, convert: Callable[[bytes], bytes] | None, encode: Encode
    ) -> AsyncIterator[list[bytes]]:
        """Open a watch. Raises 400, 410, 500, 504 before the first line."""
        if convert is None and self.strategy.from_storage is not None:
            convert = self.external
        prefix, selects = self.prefix(namespace, options), self.selects(options)
        return await self._watches.open(WatchRequest(self.kind, prefix, options, selects, convert, encode))


class Registry:
    """All resources by group, version and plural."""

    def __init__(self, store: Store, strategies: Iterable[Strategy]) -> None:
        self.store = store
        self.watch_cache = WatchCache(store)
        self.resources: dict[tuple[str, str, str], Resource] = {}
        caches: dict[str, KindCache] = {}
        for strategy in strategies:
            kind = strategy.kind
            prefix = kind.prefix()
            if prefix not in caches:
                caches[prefix] = self.watch_cache.add(prefix, strategy.head, strategy.selectable)
            resource = Resource(strategy, caches[prefix], self.watch_cache, store)
            self.resources[kind.group, kind.version, kind.plural] = resource

    def find(self, info: RequestInfo) -> Resource:
        """Return the resource a request asks for. Raises 404."""
        resource = self.resources.get((info.group, info.version, info.resource))
        if resource is None:
            raise status.no_such_resource()
        return resource

    def core(self, plural: str) -> Resource:
        """Return a resource of the core group."""
        return self.resources["", "v1", plural]
