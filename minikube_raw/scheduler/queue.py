"""Pods that wait for a node: ready ones by priority and age, those that back off, and those that no node would take.

An unschedulable pod is tried again when something changed that the filters which refused it look at, and after five
minutes in any case. Nothing in here is lost by a restart: the queue is rebuilt from the pods that have no node.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import itertools
from collections.abc import Collection

from minikube_raw.client.clock import Clock
from minikube_raw.client.delays import Delays
from minikube_raw.scheduler.podinfo import PodInfo

INITIAL_BACKOFF, MAX_BACKOFF = 1.0, 10.0
UNSCHEDULABLE_SECONDS = 300.0


class State(enum.Enum):
    """Where an entry is: in line, being scheduled, or waiting for a change or a time."""

    READY = enum.auto()
    TAKEN = enum.auto()
    WAITING = enum.auto()


class QueuedPod:
    """A pod in the queue. `attempts` failed so far; `plugins` are the filters that refused it last."""

    def __init__(self, info: PodInfo, sequence: int) -> None:
        self.info = info
        self.sequence = sequence
        self.state = State.WAITING
        self.attempts = 0
        self.plugins: frozenset[str] = frozenset()
        self.not_before = 0.0
        self.retry_at = 0.0


class SchedulingQueue:
    """One entry per pod (by uid); `pop` hands out the most urgent ready one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sequence = itertools.count()
        self._entries: dict[str, QueuedPod] = {}
        self._active: list[tuple[int, int, str]] = []
        self._waiting: dict[str, QueuedPod] = {}
        self._delays = Delays(clock, self._release)
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, info: PodInfo) -> None:
        """A pod wants a node, or one that does has changed: it becomes ready at once."""
        entry = self._entries.get(info.uid)
        if entry is None:
            entry = self._entries[info.uid] = QueuedPod(info, next(self._sequence))
        elif entry.info == info:
            return
        entry.info = info
        if entry.state is State.WAITING:
            self._activate(entry)

    def remove(self, uid: str) -> None:
        """The pod has a node or is gone."""
        self._entries.pop(uid, None)
        self._waiting.pop(uid, None)

    async def pop(self) -> QueuedPod:
        """Wait for the next ready pod. It stays known until `remove`, and is nobody else's until put back."""
        while True:
            while self._active:
                _, _, uid = heapq.heappop(self._active)
                entry = self._entries.get(uid)
                if entry is not None and entry.state is State.READY:
                    entry.state = State.TAKEN
                    return entry
            self._ready.clear()
            await self._ready.wait()

    def put_back(self, entry: QueuedPod, plugins: frozenset[str] | None) -> None:
        """An attempt failed: refused by `plugins`, or (None) by an error that a little time may cure."""
        if self._entries.get(entry.info.uid) is not entry:
            return
        entry.attempts += 1
        now = self._clock.monotonic()
        entry.not_before = now + min(INITIAL_BACKOFF * 2.0 ** min(entry.attempts - 1, 60), MAX_BACKOFF)
        entry.plugins = plugins or frozenset()
        entry.state = State.WAITING
        self._waiting[entry.info.uid] = entry
        self._wait_until(entry, entry.not_before if plugins is None else now + UNSCHEDULABLE_SECONDS)

    def changed(self, plugins: Collection[str] | None) -> None:
        """Something changed that these filters look at (None: all of them): pods they refused are worth another try."""
        now = self._clock.monotonic()
        for entry in list(self._waiting.values()):
            if plugins is not None and entry.plugins.isdisjoint(plugins):
                continue
            if entry.not_before <= now:
                self._activate(entry)
            elif entry.not_before < entry.retry_at:
                self._wait_until(entry, entry.not_before)

    def _activate(self, entry: QueuedPod) -> None:
        entry.state = State.READY
        self._waiting.pop(entry.info.uid, None)
        heapq.heappush(self._active, (-entry.info.priority, entry.sequence, entry.info.uid))
        self._ready.set()

    def _wait_until(self, entry: QueuedPod, due: float) -> None:
        entry.retry_at = due
        self._delays.add(entry.info.uid, due)

    def _release(self, uid: str, due: float) -> None:
        entry = self._waiting.get(uid)
        if entry is not None and entry.retry_at == due:
            self._activate(entry)
