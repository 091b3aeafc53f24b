"""Fan-out of published events to watches: each has a buffer bounded in bytes, and whoever falls behind is cut off.

A watch that was cut off raises Compacted, so that its reader lists again; nobody ever waits for a reader. Events are
filtered once per distinct prefix, however many watches share it.
"""

from __future__ import annotations

import asyncio

from minikube_raw.store.kv import Compacted, Event


class Watch:
    """One reader's events. Iterate it; close it with `aclose` when done."""

    def __init__(self, hub: Hub, prefix: str, after: int) -> None:
        self._hub = hub
        self.prefix = prefix
        self._after = after
        self._buffer: list[Event] = []
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._cut_off_at = 0

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> list[Event]:
        while not self._buffer:
            if self._cut_off_at:
                raise Compacted(self._cut_off_at)
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        batch, self._buffer, self._bytes = self._buffer, [], 0
        return batch

    async def aclose(self) -> None:
        """Stop watching; events not read yet are dropped."""
        self._buffer = []
        self.end()
        self._hub.forget(self)

    def push(self, events: list[Event], size: int, limit: int) -> None:
        """Take events over from the hub; more than `limit` bytes unread ends the watch with Compacted."""
        if events[0].kv.mod_revision <= self._after:
            events = [event for event in events if event.kv.mod_revision > self._after]
        if self._bytes and self._bytes + size > limit:
            self._cut_off_at = events[-1].kv.mod_revision if events else self._after
            self._buffer = []
            self._hub.forget(self)
        else:
            self._buffer += events
            self._bytes += size
        self._wake()

    def end(self) -> None:
        """End the iteration after what is buffered."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Hub:
    """All watches of a store."""

    def __init__(self, max_buffer_bytes: int) -> None:
        self._max_buffer_bytes = max_buffer_bytes
        self._by_prefix: dict[str, set[Watch]] = {}

    def watch(self, prefix: str, after: int, backlog: list[Event]) -> Watch:
        """Start a watch with the events it has missed; later events up to `after` are not for it."""
        watch = Watch(self, prefix, after)
        self._by_prefix.setdefault(prefix, set()).add(watch)
        missed = [event for event in backlog if event.kv.key.startswith(prefix)]
        if missed:
            watch.push(missed, 0, self._max_buffer_bytes)
        return watch

    def publish(self, events: list[Event]) -> None:
        """Hand events to every watch they concern."""
        for prefix, watches in list(self._by_prefix.items()):
            matching = [event for event in events if event.kv.key.startswith(prefix)]
            if not matching:
                continue
            size = sum(len(event.kv.value) for event in matching)
            for watch in list(watches):
                watch.push(matching, size, self._max_buffer_bytes)

    def forget(self, watch: Watch) -> None:
        """Drop a watch."""
        watches = self._by_prefix.get(watch.prefix, set())
        watches.discard(watch)
        if not watches:
            self._by_prefix.pop(watch.prefix, None)

    def end(self) -> None:
        """End all watches."""
        for watches in list(self._by_prefix.values()):
            for watch in list(watches):
                watch.end()
        self._by_prefix.clear()
