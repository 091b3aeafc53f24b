"""The key-value protocol under the API server, in etcd's words: revision, compare-and-swap, range, watch, compact.

The store knows keys, bytes and revisions and nothing else; if a name in here mentions pods, it is in the wrong layer.
Two engines implement it (`sqlite`, later `etcd`) and pass one table of tests. One revision sequence serves all keys.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol


class KeyValue(NamedTuple):
    """A key at one revision. Values never contain their own revision: readers add it."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int


class RangeResult(NamedTuple):
    """Keys in order, as they were at `revision`; `remaining` counts the keys after the limit."""

    kvs: list[KeyValue]
    revision: int
    remaining: int


class EventType(enum.Enum):
    """etcd's mvccpb.Event types."""

    PUT = "PUT"
    DELETE = "DELETE"


class Event(NamedTuple):
    """One change; `prev` is the state before. For DELETE `kv` has an empty value and the deletion's mod_revision."""

    type: EventType
    kv: KeyValue
    prev: KeyValue | None


class StoreError(Exception):
    """The store could not do it (disk full, not a database, …); nothing of the request was published."""


class RevisionConflict(StoreError):
    """A compare failed: `current` is what stands at the key now, None if nothing does."""

    def __init__(self, key: str, current: KeyValue | None) -> None:
        super().__init__(f"{key}: revision differs")
        self.key = key
        self.current = current


class Compacted(StoreError):
    """History up to `revision` is gone; list again."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"revisions up to {revision} have been compacted")
        self.revision = revision


class FutureRevision(StoreError):
    """The store has not reached that revision yet."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(f"revision {asked} is in the future, the store is at {current}")
        self.asked = asked
        self.current = current


class Watch(Protocol):
    """Batches of events, in order, none lost. Ends when the store closes; Compacted when its reader was too slow."""

    def __aiter__(self) -> Watch: ...

    async def __anext__(self) -> list[Event]: ...

    async def aclose(self) -> None:
        """Stop watching; a watch that is dropped without this keeps buffering until it is cut off."""
        ...


class Store(Protocol):
    """What both engines do. A write returns once it is durable and published: revision → commit → publish → answer."""

    @property
    def revision(self) -> int:
        """The last published revision."""
        ...

    async def open(self) -> None:
        """Open or create; repairs what a crash left. StoreError, with the cure, for a file that is not ours or newer."""
        ...

    async def close(self) -> None:
        """Commit what is pending, write lazy values down, end all watches."""
        ...

    async def get(self, key: str) -> KeyValue | None:
        """The key as last published."""
        ...

    async def range(self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0) -> RangeResult:
        """Keys with the prefix, from `start` on, at `revision` (0: now). Raises Compacted, FutureRevision."""
        ...

    async def put(self, key: str, value: bytes, *, expect: int, lazy: bool = False) -> int:
        """Write if the key's mod_revision equals `expect` (0: it must not exist). Raises RevisionConflict, StoreError.

        Returns the new revision. lazy: an update published at once, on disk within 5 minutes or at close (heartbeats).
        """
        ...

    async def delete(self, key: str, *, expect: int) -> int:
        """Delete if the key's mod_revision equals `expect`; return the deletion's revision. Raises RevisionConflict."""
        ...

    def watch(self, prefix: str, revision: int = 0) -> Watch:
        """Watch events after `revision` (0: from now on), registered when this returns. Raises Compacted."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget history up to and including `revision`; the latest state of every key stays."""
        ...
