"""What one commit will do: operations in their order, each compared with the state its predecessors leave, become rows.

A plan touches nothing: rows go to disk first, and only then events to memory and answers to the writers. So a commit
that fails leaves no trace, and nobody is told of a conflict with a write that never happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from minikube_raw.store.database import Row
from minikube_raw.store.kv import Event, EventType, KeyValue, RevisionConflict, StoreError


class Operation(NamedTuple):
    """A put, or with value None a delete, and where its writer waits for the revision."""

    key: str
    value: bytes | None
    expect: int
    answer: asyncio.Future[int]


class Plan(NamedTuple):
    """Rows to insert, the events they are, and what to tell each writer if they become durable."""

    rows: list[Row]
    events: list[Event]
    answers: list[tuple[asyncio.Future[int], int | StoreError]]

    def answer(self) -> None:
        """Tell every writer its revision or its conflict."""
        for future, result in self.answers:
            if future.done():  # its writer gave up waiting
                continue
            if isinstance(result, StoreError):
                future.set_exception(result)
            else:
                future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Tell every writer that nothing was written."""
        for future, _ in self.answers:
            if not future.done():
                future.set_exception(StoreError(str(error)))


def plan(operations: Sequence[Operation], current: Callable[[str], KeyValue | None], first_revision: int) -> Plan:
    """Decide a batch; revisions count up from `first_revision`, one for each operation that succeeds."""
    result = Plan([], [], [])
    changed: dict[str, KeyValue | None] = {}
    for operation in operations:
        before = changed[operation.key] if operation.key in changed else current(operation.key)
        deletes_nothing = operation.value is None and before is None
        if deletes_nothing or (before.mod_revision if before else 0) != operation.expect:
            result.answers.append((operation.answer, RevisionConflict(operation.key, before)))
            continue
        event = change(operation.key, operation.value, before, first_revision + len(result.events))
        changed[operation.key] = event.kv if event.type is EventType.PUT else None
        result.events.append(event)
        result.rows.append(row(event))
        result.answers.append((operation.answer, event.kv.mod_revision))
    return result


def change(key: str, value: bytes | None, before: KeyValue | None, revision: int) -> Event:
    """Return the event of writing `value`, or of deleting with None."""
    created = before.create_revision if before else revision
    kind = EventType.DELETE if value is None else EventType.PUT
    return Event(kind, KeyValue(key, value or b"", created, revision), before)


def row(event: Event) -> Row:
    """Return an event's row."""
    kv, deleted = event.kv, int(event.type is EventType.DELETE)
    return Row(kv.mod_revision, kv.key, kv.create_revision, deleted, kv.value)
