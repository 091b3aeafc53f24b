"""The watch cache: per kind, every object's bytes as last published, the recent changes, and whoever watches them.

It is fed by one watch of the whole store, so its revision is the store's and one wait tells whether a read is fresh.
Entries share the store's bytes; the resourceVersion is spliced in when they go out, and a watch frame is made on first
need for all watchers.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from minikube_raw.api import status
from minikube_raw.apiserver.changes import Change, Entry, Watcher
from minikube_raw.apiserver.resources.strategy import Head
from minikube_raw.store.kv import Compacted, Event, EventType, KeyValue, Store

ROOT = "/registry/"
# Changes kept for watchers that come back: as kube-apiserver, a bounded number, and bounded bytes.
HISTORY_EVENTS = 4096
HISTORY_BYTES = 16 << 20
# How long a read waits for a revision it was told of (storage/cacher's blockTimeout).
FRESH_SECONDS = 3.0


class KindCache:
    """All objects of one store prefix, in key order, with recent history and watchers."""

    def __init__(self, prefix: str, head: type[Head], selectable: Mapping[str, Callable[[Any], str]]) -> None:
        self.prefix = prefix
        self.entries: dict[str, Entry] = {}
        self._decode = msgspec.json.Decoder(head).decode
        self._selectable = selectable
        self._keys: list[str] = []
        self._history: deque[Change] = deque()
        self._history_bytes = 0
        # Changes up to this revision are not in the history (any more).
        self._forgotten = 0
        self._watchers: dict[str, set[Watcher]] = {}

    def entry(self, kv: KeyValue) -> Entry:
        """Read what selectors need from a stored object, and splice its revision."""
        head = self._decode(kv.value)
        meta = head.metadata
        return Entry(
            kv.key,
            meta.name,
            meta.namespace,
            meta.uid,
            kv.mod_revision,
            kv.value,
            meta.labels,
            tuple(owner.uid for owner in meta.owner_references),
            {
                "metadata.name": meta.name,
                "metadata.namespace": meta.namespace,
                **{label: value(head) for label, value in self._selectable.items()},
            },
        )

    def load(self, kvs: Sequence[KeyValue], revision: int) -> None:
        """Start with these objects; what was before `revision` is unknown."""
        self.entries = {kv.key: self.entry(kv) for kv in kvs}
        self._keys = sorted(self.entries)
        self._forgotten = revision

    def apply(self, event: Event) -> Change:
        """Take over one published change and offer it to the watchers."""
        key, revision = event.kv.key, event.kv.mod_revision
        previous = self.entries.get(key)
        if event.type is EventType.PUT:
            entry = self.entries[key] = self.entry(event.kv)
            if previous is None:
                bisect.insort(self._keys, key)
        else:
            entry = None
            if self.entries.pop(key, None) is not None:
                del self._keys[bisect.bisect_left(self._keys, key)]
        change = Change(revision, entry, previous)
        self._remember(change)
        for prefix in self._prefixes(key):
            for watcher in self._watchers.get(prefix, ()):
                watcher.offer(change)
        return change

    def select(self, prefix: str, selects: Callable[[Entry], bool] | None) -> Iterator[Entry]:
        """Yield the entries under `prefix` (a key counts as its own prefix) in key order."""
        if prefix == self.prefix:
            keys: Sequence[str] = self._keys
        elif not prefix.endswith("/"):
            keys = [prefix] if prefix in self.entries else []
        else:
            first = bisect.bisect_left(self._keys, prefix)
            keys = self._keys[first : bisect.bisect_left(self._keys, prefix[:-1] + "0")]  # "0" follows "/"
        entries = self.entries
        found = (entries[key] for key in keys)
        return found if selects is None else filter(selects, found)

    def subscribe(self, watcher: Watcher) -> None:
        """Offer changes to the watcher from now on."""
        self._watchers.setdefault(watcher.prefix, set()).add(watcher)

    def unsubscribe(self, watcher: Watcher) -> None:
        """Forget the watcher."""
        watchers = self._watchers.get(watcher.prefix)
        if watchers is not None:
            watchers.discard(watcher)
            if not watchers:
                del self._watchers[watcher.prefix]

    @property
    def watchers(self) -> int:
        """How many watches are open."""
        return sum(len(watchers) for watchers in self._watchers.values())

    def close(self) -> None:
        """End every watch."""
        for watcher in itertools.chain.from_iterable(self._watchers.values()):
            watcher.close()

    def since(self, revision: int, prefix: str) -> list[Change]:
        """Return the changes under `prefix` after `revision`. Raises 410 when they are not known any more."""
        if revision < self._forgotten:
            raise status.expired(f"too old resource version: {revision} ({self._forgotten})")
        newer = itertools.takewhile(lambda change: change.revision > revision, reversed(self._history))
        found = [change for change in newer if _key(change).startswith(prefix)]
        found.reverse()
        return found

    def _prefixes(self, key: str) -> tuple[str, ...]:
        """The prefixes a watcher of this key may have: the kind, the namespace, the object."""
        return tuple(dict.fromkeys((self.prefix, key[: key.rindex("/") + 1], key)))

    def _remember(self, change: Change) -> None:
        self._history.append(change)
        self._history_bytes += _size(change)
        while len(self._history) > HISTORY_EVENTS or self._history_bytes > HISTORY_BYTES:
            dropped = self._history.popleft()
            self._history_bytes -= _size(dropped)
            self._forgotten = dropped.revision


class WatchCache:
    """The caches of all kinds, and the one task that feeds them from the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kinds: dict[str, KindCache] = {}
        self._listeners: list[Callable[[KindCache, Change], None]] = []
        self._feeder: asyncio.Task[None] | None = None
        self._progress: list[tuple[int, asyncio.Future[None]]] = []
        self.revision = 0

    def add(self, prefix: str, head: type[Head], selectable: Mapping[str, Callable[[Any], str]]) -> KindCache:
        """Serve the kind stored under `prefix`. To be called before `start`."""
        cache = self._kinds[prefix] = KindCache(prefix, head, selectable)
        return cache

    def listen(self, listener: Callable[[KindCache, Change], None]) -> None:
        """Call `listener` on every change, for indexes."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Load everything and follow the store from there."""
        self._feeder = asyncio.create_task(self._feed(await self._load()), name="watch cache")

    async def _load(self) -> int:
        revision = self._store.revision
        for prefix, cache in self._kinds.items():
            cache.load((await self._store.range(prefix, revision=revision)).kvs, revision)
            for entry in cache.entries.values():
                self._tell(cache, Change(entry.revision, entry, None))
        self.revision = revision
        return revision

    async def stop(self) -> None:
        """End all watches and stop following."""
        for cache in self._kinds.values():
            cache.close()
        if self._feeder is not None:
            self._feeder.cancel()
            await asyncio.gather(self._feeder, return_exceptions=True)

    async def wait(self, revision: int) -> None:
        """Wait until the cache has reached `revision`. Raises 504 when it does not come."""
        if self.revision >= revision:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._progress.append((revision, reached))
        try:
            async with asyncio.timeout(FRESH_SECONDS):
                await reached
        except TimeoutError:
            raise status.too_large_resource_version(revision, self.revision) from None

    async def fresh(self) -> None:
        """Wait until every write acknowledged so far is in the cache."""
        await self.wait(self._store.revision)

    async def _feed(self, revision: int) -> None:
        while True:
            try:
                await self._follow(revision)
                return
            except Compacted:
                # The store outran us: watchers are told to list again, and so do we.
                for cache in self._kinds.values():
                    cache.close()
                revision = await self._load()

    async def _follow(self, revision: int) -> None:
        async for events in self._store.watch(ROOT, revision):
            for event in events:
                cache = self._find(event.kv.key)
                if cache is not None:
                    self._tell(cache, cache.apply(event))
                self.revision = event.kv.mod_revision
            self._wake()

    def _find(self, key: str) -> KindCache | None:
        # /registry/pods/NAMESPACE/NAME, /registry/services/specs/NAMESPACE/NAME
        second = key.index("/", len(ROOT)) + 1
        return self._kinds.get(key[:second]) or self._kinds.get(key[: key.find("/", second) + 1])

    def _tell(self, cache: KindCache, change: Change) -> None:
        for listener in self._listeners:
            listener(cache, change)

    def _wake(self) -> None:
        waiting = []
        for wanted, reached in self._progress:
            if wanted > self.revision:
                waiting.append((wanted, reached))
            elif not reached.done():
                reached.set_result(None)
        self._progress = waiting


def _key(change: Change) -> str:
    entry = change.entry or change.previous
    assert entry is not None
    return entry.key


def _size(change: Change) -> int:
    return sum(len(entry.stored) for entry in (change.entry, change.previous) if entry is not None)
