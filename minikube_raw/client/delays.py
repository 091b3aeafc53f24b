"""Keys that are to be looked at later: a heap of times, and one timer for the earliest."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from minikube_raw.client.clock import Clock, Timer


class Delays:
    """Calls `release(key, due)` when a key is due. Nothing is taken back: whoever asked twice compares `due` with its last wish."""

    def __init__(self, clock: Clock, release: Callable[[str, float], None]) -> None:
        self._clock, self._release = clock, release
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._timer: Timer | None = None
        self._timer_due = 0.0

    def add(self, key: str, due: float) -> None:
        """Has a key released at `due`, in seconds of the clock's monotonic time; of equal ones the first goes first."""
        heapq.heappush(self._heap, (due, next(self._order), key))
        if self._timer is None or due < self._timer_due:
            self._set_timer(due)

    def close(self) -> None:
        """Releases nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, due: float) -> None:
        self.close()
        self._timer_due = due
        self._timer = self._clock.call_later(due - self._clock.monotonic(), self._release_due)

    def _release_due(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now + 1e-9:
            due, _, key = heapq.heappop(self._heap)
            self._release(key, due)
        if self._heap:
            self._set_timer(self._heap[0][0])
