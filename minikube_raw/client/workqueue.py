"""The work queue of a controller, after client-go's: keys, not changes.

A key waits at most once, is handed to at most one worker at a time, and one added while it is being worked on comes
again afterwards. Failures come back after an exponential back-off per key. Queues carry no data on purpose: the worker
looks at the world as it is now.
"""

from __future__ import annotations

import asyncio
from collections import deque

from minikube_raw.client.clock import Clock, SystemClock
from minikube_raw.client.delays import Delays


class ShutDown(Exception):
    """The queue has been shut down; no more keys will come."""


class WorkQueue:
    """Keys to look at. A failing key waits `base_delay` seconds, twice as long each time, `max_delay` at most."""

    def __init__(self, *, clock: Clock | None = None, base_delay: float = 0.005, max_delay: float = 1000.0) -> None:
        self._clock: Clock = clock or SystemClock()
        self._base_delay, self._max_delay = base_delay, max_delay
        self._ready: deque[str] = deque()
        self._dirty: set[str] = set()
        self._working: set[str] = set()
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._delays = Delays(self._clock, self._release)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._shut_down = False

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing is ready and nobody is working; delayed keys may still come."""
        return not self._ready and not self._working

    def add(self, key: str) -> None:
        """Ask for a look at `key`."""
        if self._shut_down or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._make_ready(key)

    def add_after(self, key: str, seconds: float) -> None:
        """Ask for a look at `key` after `seconds`; of several such wishes for one key the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + seconds
        if self._shut_down or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._delays.add(key, due)

    def add_rate_limited(self, key: str) -> float:
        """Ask again for a key that failed, later each time; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._base_delay * 2.0 ** min(failures, 60), self._max_delay)
        self.add_after(key, delay)
        return delay

    def forget(self, key: str) -> None:
        """The key is well again: its next failure starts from `base_delay`."""
        self._failures.pop(key, None)

    async def get(self) -> str:
        """The next key; call `done` with it afterwards. Raises ShutDown."""
        while not self._ready:
            if self._shut_down:
                raise ShutDown
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # Woken and cancelled in one turn: pass the wake-up on, or the key would wait for the next one.
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        """The worker is through with `key`; if it was added meanwhile it becomes ready again."""
        self._working.discard(key)
        if key in self._dirty and not self._shut_down:
            self._make_ready(key)

    def shut_down(self) -> None:
        """Hand out what is ready, then raise ShutDown to workers; forget what is delayed."""
        self._shut_down = True
        self._delays.close()
        while self._waiters:
            self._wake()

    def _make_ready(self, key: str) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _release(self, key: str, due: float) -> None:
        if self._due.get(key) == due:
            del self._due[key]
            self.add(key)
