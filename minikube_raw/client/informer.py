"""A local copy of one kind that follows the server: list, watch from that resourceVersion, list again on 410.

Handlers get (old, new) as a hint to look again; the cache, not the hint, is what loops read. `Informers` sees to it
that a process holds one copy per kind.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock, SystemClock, sleep
from minikube_raw.client.rest import Client, EventType, Resource

log = logging.getLogger(__name__)

# After so many objects the loop gets a turn: a callback that decodes a whole cluster would hold up everything else.
_YIELD_EVERY = 250
_LIST_PAGE = 500
_WATCH_SECONDS = 420
_BACKOFF_BASE, _BACKOFF_MAX = 0.2, 30.0


class Object(Protocol):
    """Any view with metadata."""

    @property
    def metadata(self) -> Any: ...  # noqa: D102


T = TypeVar("T", bound=Object)
Handler = Callable[[T | None, T | None], None]
Indexer = Callable[[T], Iterable[str]]


def key_of(view: Object) -> str:
    """Return "namespace/name", or "name" for a cluster-scoped object: the key of caches and queues."""
    metadata = view.metadata
    return f"{metadata.namespace}/{metadata.name}" if metadata.namespace else str(metadata.name)


def split_key(key: str) -> tuple[str, str]:
    """Return (namespace, name); the namespace of a cluster-scoped object is empty."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


class Informer(Generic[T]):
    """Follows one kind (of one namespace, of one selection) and keeps it in `cache`; `run` until cancelled."""

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.resource = resource
        self._client = client
        self._selection = {"label_selector": label_selector, "field_selector": field_selector}
        self._namespace = namespace
        self._clock: Clock = clock or SystemClock()
        self._cache: dict[str, T] = {}
        self._indexers: dict[str, Indexer[T]] = {}
        self._indices: dict[str, dict[str, dict[str, T]]] = {}
        self._handlers: list[Handler[T]] = []
        self._synced = asyncio.Event()
        self._resource_version = ""
        self._failures = 0

    @property
    def cache(self) -> Mapping[str, T]:
        """Objects by key (see `key_of`), as last heard of."""
        return self._cache

    @property
    def synced(self) -> bool:
        """Whether the first list is in the cache."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait for the first list."""
        await self._synced.wait()

    def get(self, key: str) -> T | None:
        """Return the object of that key."""
        return self._cache.get(key)

    def add_handler(self, handler: Handler[T]) -> None:
        """Call handler(old, new) on every change: old is None for a new object, new is None for a deleted one.

        What is in the cache already is told at once, as new. A handler is short and does not wait.
        """
        self._handlers.append(handler)
        for view in list(self._cache.values()):
            handler(None, view)

    def add_index(self, name: str, indexer: Indexer[T]) -> None:
        """Keep objects findable by what `indexer` says of each (owner uids, a node's name, …); twice is fine."""
        if name in self._indexers:
            return
        self._indexers[name] = indexer
        self._indices[name] = {}
        for key, view in self._cache.items():
            self._index(name, key, None, view)

    def by_index(self, name: str, value: str) -> Collection[T]:
        """Return the objects of which the indexer said `value`."""
        return self._indices[name].get(value, {}).values()

    async def run(self) -> None:
        """List and watch for ever; every failure is retried, later each time."""
        while True:
            try:
                await self._list()
                await self._watch_until_expired()
            except StatusError as error:
                # 410 is the way a watch ends that fell too far behind: nothing is wrong, the list is only due again.
                if error.code != 410:
                    await self._back_off(error)
            except OSError as error:
                await self._back_off(error)
            except Exception as error:
                # An object our view cannot read, or a handler's defect, must not end the loops of all other kinds.
                log.exception("following %s failed", self.resource.kind.resource)
                await self._back_off(error)

    async def _list(self) -> None:
        found: dict[str, T] = {}
        continue_ = ""
        while True:
            page = await self._client.list(
                self.resource, self._namespace, limit=_LIST_PAGE, continue_=continue_, **self._selection
            )
            found.update((key_of(view), view) for view in page.items)
            continue_ = page.metadata.continue_
            if not continue_:
                break
            await asyncio.sleep(0)
        await self._replace(found)
        self._resource_version = page.metadata.resource_version
        self._failures = 0
        self._synced.set()

    async def _replace(self, found: dict[str, T]) -> None:
        for count, key in enumerate([key for key in self._cache if key not in found]):
            self._change(key, None)
            await _breathe(count)
        for count, (key, view) in enumerate(found.items()):
            old = self._cache.get(key)
            if old is None or old.metadata.resource_version != view.metadata.resource_version:
                self._change(key, view)
            await _breathe(count)

    async def _watch_until_expired(self) -> None:
        """Watch again and again from where the last one ended; only a StatusError (410 above all) makes a list due."""
        while True:
            try:
                await self._watch()
            except OSError as error:
                await self._back_off(error)

    async def _watch(self) -> None:
        # Watches end at different times, or all of a server's informers would come back in the same second.
        timeout = _WATCH_SECONDS + random.randrange(_WATCH_SECONDS)
        events = self._client.watch(
            self.resource, self._namespace, resource_version=self._resource_version, timeout=timeout, **self._selection
        )
        count = 0
        async for type_, view in events:
            count += 1
            self._resource_version = view.metadata.resource_version
            self._failures = 0
            if type_ is not EventType.BOOKMARK:
                self._change(key_of(view), None if type_ is EventType.DELETED else view)
            await _breathe(count)
        if count == 0:
            await self._back_off(None)

    def _change(self, key: str, new: T | None) -> None:
        old = self._cache.get(key)
        if new is None:
            self._cache.pop(key, None)
        else:
            self._cache[key] = new
        if old is None and new is None:
            return
        for name in self._indexers:
            self._index(name, key, old, new)
        for handler in self._handlers:
            handler(old, new)

    def _index(self, name: str, key: str, old: T | None, new: T | None) -> None:
        indexer, index = self._indexers[name], self._indices[name]
        for value in indexer(old) if old is not None else ():
            entries = index.get(value)
            if entries is not None:
                entries.pop(key, None)
                if not entries:
                    del index[value]
        for value in indexer(new) if new is not None else ():
            index.setdefault(value, {})[key] = new  # type: ignore[assignment]

    async def _back_off(self, error: Exception | None) -> None:
        delay = min(_BACKOFF_BASE * 2**self._failures, _BACKOFF_MAX)
        self._failures = min(self._failures + 1, 16)
        if error is not None:
            log.warning("following %s failed, again in %.1f s: %s", self.resource.kind.resource, delay, error)
        await sleep(self._clock, delay * (1 + random.random() / 4))


async def _breathe(count: int) -> None:
    if count % _YIELD_EVERY == _YIELD_EVERY - 1:
        await asyncio.sleep(0)


class Informers:
    """The informers of one process, one per kind over all namespaces. `run` starts those asked for, also later ones."""

    def __init__(self, client: Client, *, clock: Clock | None = None) -> None:
        self._client = client
        self._clock: Clock = clock or SystemClock()
        self._informers: dict[str, Informer[Any]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def __iter__(self) -> Iterator[Informer[Any]]:
        return iter(list(self._informers.values()))

    def of(self, resource: Resource[T]) -> Informer[T]:
        """Return the informer of a kind, made when first asked for. ValueError when it is held as another view."""
        name = resource.kind.resource
        informer = self._informers.get(name)
        if informer is None:
            informer = self._informers[name] = Informer(self._client, resource, clock=self._clock)
            if self._tasks is not None:
                self._tasks.create_task(informer.run(), name=f"informer {name}")
        if informer.resource.view is not resource.view:
            raise ValueError(f"{name} are held as {informer.resource.view.__name__}, not {resource.view.__name__}")
        return informer

    async def run(self) -> None:
        """Run all informers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for name, informer in self._informers.items():
                tasks.create_task(informer.run(), name=f"informer {name}")
            await asyncio.get_running_loop().create_future()

    async def wait_synced(self) -> None:
        """Wait for the first list of every informer asked for so far."""
        for informer in self:
            await informer.wait_synced()
