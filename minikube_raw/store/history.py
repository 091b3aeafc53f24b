"""The recent past in memory: what watches resume from and what a list at an older revision is rebuilt from.

Events share their values with the current state; only superseded values cost memory, and their sum is bounded: whoever
appends gets the events that fell out and has to compact to there. Knows nothing of disks.
"""

from __future__ import annotations

from bisect import bisect_right

from minikube_raw.store.kv import Compacted, Event, EventType, KeyValue

_EVENT_BYTES = 250  # an Event, its KeyValue and their places in the lists, measured with tracemalloc


class History:
    """Events in the order of their revisions, all after `compacted`."""

    def __init__(self, max_bytes: int, compacted: int = 0) -> None:
        self._max_bytes = max_bytes
        self.compacted = compacted
        self._events: list[Event] = []
        self._revisions: list[int] = []
        self._first = 0
        self._bytes = 0

    def append(self, event: Event) -> None:
        """Add the newest event."""
        self._events.append(event)
        self._revisions.append(event.kv.mod_revision)
        self._bytes += _size(event)

    def overflow(self) -> int:
        """Return the revision to compact to so that the bound holds again, 0 while it holds."""
        excess, at = self._bytes - self._max_bytes, self._first
        if excess <= 0:
            return 0
        while excess > 0 and at < len(self._events):
            excess -= _size(self._events[at])
            at += 1
        return self._revisions[at - 1]

    def after(self, revision: int) -> list[Event]:
        """Return the events after `revision`, oldest first. Raises Compacted."""
        if revision < self.compacted:
            raise Compacted(self.compacted)
        start = bisect_right(self._revisions, revision, lo=self._first)
        return self._events[start:]

    def states_at(self, revision: int, prefix: str) -> dict[str, KeyValue | None]:
        """Return what stood at each key with the prefix that changed after `revision`. Raises Compacted."""
        states: dict[str, KeyValue | None] = {}
        for event in self.after(revision):
            if event.kv.key.startswith(prefix):
                states.setdefault(event.kv.key, event.prev)
        return states

    def compact(self, revision: int) -> list[Event]:
        """Forget the events up to and including `revision` and return them."""
        if revision <= self.compacted:
            return []
        self.compacted = revision
        end = bisect_right(self._revisions, revision, lo=self._first)
        forgotten = self._events[self._first : end]
        self._bytes -= sum(map(_size, forgotten))
        self._first = end
        if self._first > len(self._events) // 2:
            del self._events[: self._first], self._revisions[: self._first]
            self._first = 0
        else:
            # The list shrinks only now and then; the values must go at once.
            self._events[self._first - len(forgotten) : self._first] = [_GONE] * len(forgotten)
        return forgotten


_GONE = Event(EventType.DELETE, KeyValue("", b"", 0, 0), None)


def _size(event: Event) -> int:
    return _EVENT_BYTES + (len(event.prev.value) if event.prev else 0)
