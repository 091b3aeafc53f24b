"""Objects and changes as the watch cache holds them, and the watchers that are offered changes.

Bytes are shared: an entry holds what the store holds, a change makes each of its frames once for all watchers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from minikube_raw.apiserver.frames import Encode

# What a watcher may have unread before it is cut off.
WATCHER_BYTES = 16 << 20


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An object at one revision. `stored` are the very bytes the store holds, `fields` what field selectors look at."""

    key: str
    name: str
    namespace: str
    uid: str
    revision: int
    stored: bytes
    labels: dict[str, str]
    owners: tuple[str, ...]
    fields: dict[str, str]

    @property
    def value(self) -> bytes:
        """The object as clients see it: with its resourceVersion."""
        return splice(self.stored, self.revision)


def splice(value: bytes, revision: int) -> bytes:
    """Return the stored JSON with its resourceVersion, which goes right after the uid.

    `objects.encode` writes name, namespace and uid first, and names hold no quotes, so the first `"uid":"` is the object's.
    """
    at = after_uid(value)
    return b'%b,"resourceVersion":"%d"%b' % (value[:at], revision, value[at:])


def after_uid(value: bytes) -> int:
    """Return where the resourceVersion belongs in a stored object."""
    return value.index(b'"uid":"') + 44  # 7 for the key, 36 for the uid, 1 for the quote


class Change:
    """One published change of a kind. `entry` is the new state (None: deleted), `previous` the one before (None: created)."""

    __slots__ = ("_frames", "entry", "previous", "revision")

    def __init__(self, revision: int, entry: Entry | None, previous: Entry | None) -> None:
        self.revision = revision
        self.entry = entry
        self.previous = previous
        self._frames: dict[tuple[str, Encode], bytes] = {}

    def object(self, type_: str) -> bytes:
        """The object an event of that type carries: for DELETED the last state, at the change's revision."""
        if type_ != "DELETED":
            assert self.entry is not None
            return self.entry.value
        assert self.previous is not None
        return splice(self.previous.stored, self.revision)

    def frame(self, type_: str, encode: Encode) -> bytes:
        """The watch event as it is sent, made once for all watchers of one encoding."""
        made = self._frames.get((type_, encode))
        if made is None:
            made = self._frames[type_, encode] = encode(type_, self.object(type_))
        return made

    def seen_by(self, selects: Callable[[Entry], bool] | None) -> str:
        """Return the event's type for a watcher with that selection, empty if it sees nothing."""
        now = self.entry is not None and (selects is None or selects(self.entry))
        before = self.previous is not None and (selects is None or selects(self.previous))
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else ""


class Watcher:
    """One watch of one kind: changes are offered as they are published, the connection takes them in batches.

    `selects` decides per object (None: all); `prefix` restricts to a namespace or a single key; `render` makes the line of a change.
    """

    def __init__(
        self, prefix: str, selects: Callable[[Entry], bool] | None, render: Callable[[str, Change], bytes]
    ) -> None:
        self.prefix = prefix
        self.revision = 0
        self._selects = selects
        self._render = render
        self._pending: list[bytes] = []
        self._bytes = 0
        self._closed = False
        self._wake = asyncio.Event()

    def offer(self, change: Change) -> None:
        """Queue the change's line if this watcher is to see it. Called in order, once per change."""
        self.revision = change.revision
        type_ = change.seen_by(self._selects)
        if not type_:
            return
        line = self._render(type_, change)
        self._pending.append(line)
        self._bytes += len(line)
        if self._bytes > WATCHER_BYTES:  # too slow: it is cut off and comes back with the last revision it saw
            self.close()
        self._wake.set()

    def close(self) -> None:
        """End the watch: `take` returns what is pending, then nothing more."""
        self._closed = True
        self._wake.set()

    async def take(self, timeout: float) -> list[bytes] | None:
        """Wait for lines and take all of them. Empty after `timeout` seconds, None when the watch has ended."""
        if not self._pending and not self._closed:
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return []
        self._wake.clear()
        lines, self._pending, self._bytes = self._pending, [], 0
        return lines or (None if self._closed else [])
