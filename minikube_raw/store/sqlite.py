"""The store in one SQLite file: the present and the recent past in memory, every acknowledged write on disk.

Writes queue up while a commit is under way and share the next one; the writer thread is the only place that touches the
disk, so a slow disk delays writers and never readers. Order of every batch: revisions → commit → publish → answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from minikube_raw.store.batch import Operation, Plan, change, plan
from minikube_raw.store.current import Current
from minikube_raw.store.database import Database, Row
from minikube_raw.store.history import History
from minikube_raw.store.kv import (
    Event,
    EventType,
    FutureRevision,
    KeyValue,
    RangeResult,
    RevisionConflict,
    StoreError,
)
from minikube_raw.store.watching import Hub, Watch

HISTORY_BYTES = 64 << 20
WATCH_BYTES = 16 << 20
LAZY_SECONDS = 300.0

_BATCH_OPERATIONS = 1000
_BATCH_GARBAGE = 5000
# Revisions promised to the disk ahead of their use, so that a lazy write needs no commit of its own.
_RESERVE = 100_000
# Revisions a batch leaves free below itself for lazy writes that arrive while it is being committed, for each lazy key:
# a heartbeat every 10 seconds survives a disk that hangs for over a minute.
_GAP_PER_LAZY_KEY = 8


class _Loaded(NamedTuple):
    """What a file held."""

    database: Database
    states: dict[str, KeyValue]
    history: History
    stale: dict[int, list[int]]
    garbage: list[int]
    revision: int


class _Flight(NamedTuple):
    """A batch that is being committed."""

    plan: Plan
    keys: frozenset[str]
    saved: list[Row]
    garbage: list[int]
    marks: dict[str, int]
    first_revision: int


class SQLiteStore:
    """kv.Store on a file. All methods belong to the event loop that opened it."""

    def __init__(
        self,
        path: Path,
        *,
        history_bytes: int = HISTORY_BYTES,
        watch_bytes: int = WATCH_BYTES,
        lazy_seconds: float = LAZY_SECONDS,
    ) -> None:
        self._path = path
        self._history_bytes = history_bytes
        self._lazy_seconds = lazy_seconds
        self._hub = Hub(watch_bytes)
        self._current = Current({})
        self._history = History(history_bytes)
        self._revision = 0
        self._queue: deque[Operation] = deque()
        self._flight: _Flight | None = None
        self._scheduled = False
        self._landing: asyncio.Future[None] | None = None
        self._closed = True
        # Rows on disk that go once the revision that superseded them is compacted, and those that may go now.
        self._stale: dict[int, list[int]] = {}
        self._garbage: deque[int] = deque()
        self._compacted_mark = 0
        # Keys written lazily, those of them whose newest state is not on disk (with the row that is), and the promise.
        self._lazy_keys: set[str] = set()
        self._unsaved: dict[str, int] = {}
        self._save_due = False
        self._save_timer: asyncio.TimerHandle | None = None
        self._high_water = 0

    @property
    def revision(self) -> int:
        """The last published revision."""
        return self._revision

    @property
    def compacted(self) -> int:
        """The revision up to which history is gone."""
        return self._history.compacted

    async def open(self) -> None:
        """Open or create the file and read it. Raises StoreError with the cure."""
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        try:
            loaded = await self._loop.run_in_executor(self._thread, _load, self._path, self._history_bytes)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._database = loaded.database
        self._current = Current(loaded.states)
        self._history = loaded.history
        self._stale = loaded.stale
        self._garbage = deque(loaded.garbage)
        self._revision = self._high_water = loaded.revision
        self._compacted_mark = loaded.history.compacted
        self._closed = False
        self._compact(self._history.overflow())

    async def close(self) -> None:
        """Write down what is pending and lazy, end all watches, let go of the file. A second close does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._save_timer:
            self._save_timer.cancel()
        self._save_due = True
        try:
            while self._flight or self._queue or self._unsaved:
                await self._landed()
            # Nothing is promised any more: the next open goes on right after the last revision.
            await self._loop.run_in_executor(self._thread, self._database.commit, (), (), self._final_marks())
        finally:
            self._hub.end()
            await self._loop.run_in_executor(self._thread, self._database.close)
            self._thread.shutdown()

    def _final_marks(self) -> dict[str, int]:
        return {"high_water": self._revision, "compacted": self._history.compacted}

    async def _landed(self) -> None:
        """Wait for the batch in flight, after starting one if there is none. Raises StoreError if it failed."""
        self._landing = landing = self._loop.create_future()
        self._kick()
        await landing

    async def get(self, key: str) -> KeyValue | None:
        """Return the key as last published."""
        return self._current.get(key)

    async def range(self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0) -> RangeResult:
        """Return keys with the prefix from `start` on, at `revision` (0: now). Raises Compacted, FutureRevision."""
        if revision > self._revision:
            raise FutureRevision(revision, self._revision)
        if revision in (0, self._revision):
            return self._current.range(prefix, start, limit, self._revision)
        changed = self._history.states_at(revision, prefix)
        if not changed:
            return self._current.range(prefix, start, limit, revision)
        return self._current.range_with(changed, prefix, start, limit, revision)

    async def put(self, key: str, value: bytes, *, expect: int, lazy: bool = False) -> int:
        """Write if the key's mod_revision equals `expect` (0: it must not exist). Raises RevisionConflict, StoreError.

        lazy: an update is published at once and reaches the disk within 5 minutes; a create is always durable.
        """
        if lazy:
            self._lazy_keys.add(key)
            if expect and self._has_room_for_lazy(key):
                return self._put_lazily(key, value, expect)
        return await self._submit(key, value, expect)

    async def delete(self, key: str, *, expect: int) -> int:
        """Delete if the key's mod_revision equals `expect`. Raises RevisionConflict, StoreError."""
        return await self._submit(key, None, expect)

    def watch(self, prefix: str, revision: int = 0) -> Watch:
        """Watch events after `revision` (0: from now on), from this call on. Raises Compacted, now or later."""
        after = revision or self._revision
        backlog = self._history.after(after) if after < self._revision else []
        return self._hub.watch(prefix, after, backlog)

    async def compact(self, revision: int) -> None:
        """Forget history up to and including `revision`. Raises FutureRevision."""
        if revision > self._revision:
            raise FutureRevision(revision, self._revision)
        self._compact(revision)
        self._kick()

    # Lazy writes -------------------------------------------------------------------------------------------------

    def _has_room_for_lazy(self, key: str) -> bool:
        """Whether a revision may be shown now that no commit in flight and no crash would give out again."""
        if self._closed or any(operation.key == key for operation in self._queue):
            return False
        if self._flight and (key in self._flight.keys or self._revision + 1 >= self._flight.first_revision):
            return False
        return self._revision < self._high_water

    def _put_lazily(self, key: str, value: bytes, expect: int) -> int:
        before = self._current.get(key)
        if before is None or before.mod_revision != expect:
            raise RevisionConflict(key, before)
        self._unsaved.setdefault(key, expect)
        self._publish([change(key, value, before, self._revision + 1)])
        if self._save_timer is None:
            self._save_timer = self._loop.call_later(self._lazy_seconds, self._save)
        return self._revision

    def _save(self) -> None:
        self._save_timer = None
        self._save_due = True
        self._kick()

    def _unsaved_rows(self, keys: set[str]) -> list[Row]:
        """Return rows for the lazy states, except those of `keys`, which the batch replaces anyway."""
        rows = []
        for key in self._unsaved:
            kv = self._current.get(key)
            if kv is not None and key not in keys:
                rows.append(Row(kv.mod_revision, key, kv.create_revision, 0, kv.value))
        return rows

    def _saved(self, rows: Iterable[Row]) -> None:
        """Note that lazy states reached the disk; they may have been replaced in memory since."""
        for row in rows:
            self._supersede(row.revision, self._unsaved.pop(row.key))
            kv = self._current.get(row.key)
            if kv is not None and kv.mod_revision != row.revision:
                self._unsaved[row.key] = row.revision
                self._save_timer = self._save_timer or self._loop.call_later(self._lazy_seconds, self._save)

    # Batches -----------------------------------------------------------------------------------------------------

    async def _submit(self, key: str, value: bytes | None, expect: int) -> int:
        if self._closed:
            raise StoreError("the store is closed")
        answer: asyncio.Future[int] = self._loop.create_future()
        self._queue.append(Operation(key, value, expect, answer))
        self._kick()
        return await answer

    def _kick(self) -> None:
        """Start a batch at the end of this turn of the loop, so that all writers of the turn are in it."""
        if not self._scheduled and not self._flight:
            self._scheduled = True
            self._loop.call_soon(self._take_off)

    def _take_off(self) -> None:
        self._scheduled = False
        operations = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH_OPERATIONS))]
        first = self._revision + 1 + _GAP_PER_LAZY_KEY * len(self._lazy_keys)
        planned = plan(operations, self._current.get, first)
        keys = frozenset(operation.key for operation in operations)
        saved = self._unsaved_rows({row.key for row in planned.rows}) if self._save_due else []
        garbage = [self._garbage.popleft() for _ in range(min(len(self._garbage), _BATCH_GARBAGE))]
        self._flight = _Flight(planned, keys, saved, garbage, self._marks(first + len(planned.rows)), first)
        rows = saved + planned.rows
        if not (rows or garbage or self._flight.marks):
            self._land(None)
            return
        commit = self._loop.run_in_executor(self._thread, self._database.commit, rows, garbage, self._flight.marks)
        commit.add_done_callback(lambda done: self._land(done.exception()))

    def _marks(self, revision: int) -> dict[str, int]:
        """Return the marks this batch has to move."""
        marks = {}
        if self._history.compacted != self._compacted_mark:
            marks["compacted"] = self._history.compacted
        if self._lazy_keys and revision + _RESERVE // 2 > self._high_water:
            marks["high_water"] = revision + _RESERVE
        return marks

    def _land(self, error: BaseException | None) -> None:
        """Publish and answer a committed batch, or answer a failed one; then start the next."""
        flight, self._flight = self._flight, None
        assert flight is not None
        if error is None:
            self._arrived(flight)
        else:
            self._garbage.extend(flight.garbage)
            flight.plan.fail(error)
        self._report_landing(error)
        if self._queue or (self._garbage and error is None):
            self._kick()

    def _arrived(self, flight: _Flight) -> None:
        if flight.saved:
            self._save_due = self._closed
            self._saved(flight.saved)
        self._high_water = flight.marks.get("high_water", self._high_water)
        self._compacted_mark = flight.marks.get("compacted", self._compacted_mark)
        for event in flight.plan.events:
            self._note_stale(event)
        self._publish(flight.plan.events)
        flight.plan.answer()

    def _report_landing(self, error: BaseException | None) -> None:
        waiting, self._landing = self._landing, None
        if waiting is None or waiting.done():
            return
        if error is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(error)

    def _publish(self, events: list[Event]) -> None:
        if not events:
            return
        for event in events:
            self._current.apply(event)
            self._history.append(event)
        self._revision = events[-1].kv.mod_revision
        self._hub.publish(events)
        self._compact(self._history.overflow())

    # Compaction --------------------------------------------------------------------------------------------------

    def _note_stale(self, event: Event) -> None:
        """Remember which rows an event makes superfluous: the one it replaces and, for a deletion, its own."""
        key, revision = event.kv.key, event.kv.mod_revision
        if event.prev is not None:
            self._supersede(revision, self._unsaved.pop(key, event.prev.mod_revision))
        if event.type is EventType.DELETE:
            self._supersede(revision, revision)
            self._lazy_keys.discard(key)

    def _supersede(self, by: int, row: int) -> None:
        if by <= self._history.compacted:
            self._garbage.append(row)
        else:
            self._stale.setdefault(by, []).append(row)

    def _compact(self, revision: int) -> None:
        for event in self._history.compact(revision):
            self._garbage.extend(self._stale.pop(event.kv.mod_revision, ()))


def _load(path: Path, history_bytes: int) -> _Loaded:
    """Read a file into memory; runs in the writer thread."""
    database = Database(path)
    marks = database.marks()
    history = History(history_bytes, marks.get("compacted", 0))
    states: dict[str, KeyValue] = {}
    stale: dict[int, list[int]] = {}
    garbage: list[int] = []
    revision = 0
    for row in database.rows():
        revision = row.revision
        before = states.pop(row.key, None)
        kv = KeyValue(row.key, row.value, row.create_revision, row.revision)
        superfluous = [before.mod_revision] if before else []
        if row.deleted:
            superfluous.append(row.revision)
        else:
            states[row.key] = kv
        if row.revision <= history.compacted:
            garbage += superfluous
            continue
        history.append(Event(EventType.DELETE if row.deleted else EventType.PUT, kv, before))
        if superfluous:
            stale[row.revision] = superfluous
    return _Loaded(database, states, history, stale, garbage, max(revision, *marks.values(), 0))
