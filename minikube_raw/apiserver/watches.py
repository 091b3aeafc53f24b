"""The watch verb: initial events, then changes as they are published, with bookmarks, until time is up or the client goes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec

from minikube_raw.api import status
from minikube_raw.api.scheme import Kind
from minikube_raw.apiserver.cache import KindCache, WatchCache
from minikube_raw.apiserver.changes import Change, Entry, Watcher
from minikube_raw.apiserver.frames import Encode, bookmark, line
from minikube_raw.apiserver.lists import Selects
from minikube_raw.apiserver.options import ListOptions, read_revision

BOOKMARK_SECONDS = 60.0
# A watch without timeoutSeconds ends after a random time, so that reconnections spread (apiserver's min-request-timeout).
MIN_SECONDS, MAX_SECONDS = 1800, 3600
# Initial events are handed over in pieces, between which the loop serves others.
_PIECE = 50
Render = Callable[[str, Change], bytes]


class WatchRequest(msgspec.Struct, frozen=True):
    """A watch to be served: what is selected, and how an object is written."""

    kind: Kind
    prefix: str
    options: ListOptions
    selects: Selects
    # None: the stored form, whose frames all watchers of one encoding share.
    convert: Callable[[bytes], bytes] | None
    encode: Encode = line


class WatchServer:
    """Serves watches of one kind's cache."""

    def __init__(self, watch_cache: WatchCache, cache: KindCache) -> None:
        self._watch_cache = watch_cache
        self._cache = cache

    async def open(self, request: WatchRequest) -> AsyncIterator[list[bytes]]:
        """Check the request and return its stream of lines, in batches. Raises 410, 500, 504 before anything is sent."""
        options = request.options
        text = options.resource_version
        try:
            revision = read_revision(text)
        except ValueError as error:
            raise status.StatusError(500, "", str(error)) from None
        await self._watch_cache.wait(revision)
        if not text:
            await self._watch_cache.fresh()
        initial = options.send_initial_events
        with_state = initial if initial is not None else revision == 0
        watcher = Watcher(request.prefix, request.selects, _renderer(request))
        # From here to `subscribe` nothing may wait: the state, the missed changes and what follows must fit together.
        if with_state:
            first = self._state(request, watcher)
        else:
            missed = self._cache.since(revision, request.prefix) if revision else []
            first = iter([])
            for change in missed:
                watcher.offer(change)
        watcher.revision = self._watch_cache.revision
        self._cache.subscribe(watcher)
        ends = (
            bookmark(request.encode, request.kind, watcher.revision, initial_end=True)
            if initial and options.bookmarks
            else b""
        )
        return self._stream(request, watcher, first, ends)

    def _state(self, request: WatchRequest, watcher: Watcher) -> Iterator[list[bytes]]:
        entries = list(self._cache.select(request.prefix, request.selects))
        encode, convert = request.encode, request.convert

        def pieces() -> Iterator[list[bytes]]:
            for begin in range(0, len(entries), _PIECE):
                piece: list[Entry] = entries[begin : begin + _PIECE]
                yield [encode("ADDED", convert(e.value) if convert else e.value) for e in piece]

        return pieces()

    async def _stream(
        self, request: WatchRequest, watcher: Watcher, first: Iterator[list[bytes]], ends: bytes
    ) -> AsyncIterator[list[bytes]]:
        options, loop = request.options, asyncio.get_running_loop()
        seconds = options.timeout if options.timeout > 0 else random.uniform(MIN_SECONDS, MAX_SECONDS)
        deadline = loop.time() + seconds
        try:
            for piece in first:
                yield piece
                await asyncio.sleep(0)
            if ends:
                yield [ends]
            while (left := deadline - loop.time()) > 0:
                lines = await watcher.take(min(left, BOOKMARK_SECONDS))
                if lines is None:
                    return
                if lines:
                    yield lines
                elif options.bookmarks:
                    yield [bookmark(request.encode, request.kind, self._watch_cache.revision)]
        finally:
            self._cache.unsubscribe(watcher)


def _renderer(request: WatchRequest) -> Render:
    encode, convert = request.encode, request.convert
    if convert is None:
        return lambda type_, change: change.frame(type_, encode)
    return lambda type_, change: encode(type_, convert(change.object(type_)))
