"""Growing waits between attempts at the same thing: restarts of a container, pulls of an image.

The rules are the kubelet's (k8s.io/client-go/util/flowcontrol.Backoff): the first wait is 10 s, each further one
doubles up to 5 min, and ten quiet minutes start it over. The clock is passed in; nothing here waits.
"""

from __future__ import annotations

import msgspec

INITIAL_SECONDS = 10.0
MAX_SECONDS = 300.0


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A wait of `delay` seconds, decided at `since` (seconds since the epoch)."""

    delay: float
    since: float


class Backoff:
    """Waits by key. Lost when the kubelet restarts, as upstream: the first restart then is immediate again."""

    def __init__(self, initial: float = INITIAL_SECONDS, maximum: float = MAX_SECONDS) -> None:
        self._initial = initial
        self._maximum = maximum
        self._entries: dict[str, Entry] = {}

    def get(self, key: str) -> Entry | None:
        """The wait decided last for a key."""
        return self._entries.get(key)

    def advance(self, key: str, event_time: float, now: float) -> None:
        """Note another attempt after something failed at event_time; the next one will have to wait longer."""
        entry = self._entries.get(key)
        fresh = entry is None or event_time - entry.since > 2 * self._maximum
        delay = self._initial if fresh or entry is None else min(entry.delay * 2, self._maximum)
        self._entries[key] = Entry(delay=delay, since=now)

    def forget(self, key: str) -> None:
        """Start over for a key."""
        self._entries.pop(key, None)


def remaining(entry: Entry | None, event_time: float, now: float, maximum: float = MAX_SECONDS) -> float:
    """Seconds that still have to pass after an event before the next attempt; 0 when it may happen now."""
    if entry is None or event_time - entry.since > 2 * maximum:
        return 0.0
    return max(0.0, event_time + entry.delay - now)
