"""The SQLite file: its schema, who may open it, and one transaction per batch. Synchronous; lives in the writer thread.

One table is a history whose key is the revision; the newest row of a key is its state (kine keeps its data like this).
No index but the revision: reads never come here. WAL with synchronous=FULL makes a returned commit survive a power cut,
and the exclusive lock keeps a second process out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from minikube_raw.store.kv import StoreError

APPLICATION_ID = 0x6D6B7261  # "mkra", so that `file` and we can tell our databases from others
SCHEMA_VERSION = 1

_SCHEMA = (
    """CREATE TABLE history (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, create_revision INTEGER NOT NULL,
                             deleted INTEGER NOT NULL, value BLOB NOT NULL)""",
    "CREATE TABLE mark (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class Row(NamedTuple):
    """A row of history: what a key became at a revision."""

    revision: int
    key: str
    create_revision: int
    deleted: int
    value: bytes


class Database:
    """One open file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = self._open()
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=1)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot open {self._path}: {error}; check that the directory is writable") from error

    def _prepare(self) -> None:
        try:
            self._refuse_foreign()
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._check_integrity()
            if self._pragma("user_version") == 0:
                self._create()
            # With the exclusive mode the lock is taken by the first write and kept.
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StoreError(f"{self._path} is in use by another process; stop that master first") from error
            raise StoreError(f"cannot use {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self._path} is damaged or no SQLite database: {error}; restore a backup or move the file away"
            ) from error

    def _refuse_foreign(self) -> None:
        version, application = self._pragma("user_version"), self._pragma("application_id")
        empty = not self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION_ID and not (empty and version == 0 and application == 0):
            raise StoreError(f"{self._path} belongs to another program; choose another state directory or move it away")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer minikube_raw (format {version}, this one knows {SCHEMA_VERSION});"
                " install the newer version or restore an older backup"
            )

    def _check_integrity(self) -> None:
        (answer,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise StoreError(f"{self._path} is damaged: {answer}; restore a backup or move the file away")

    def _create(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            self._connection.execute(statement)
        self._connection.execute("COMMIT")

    def _pragma(self, name: str) -> int:
        (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)

    def rows(self) -> Iterator[Row]:
        """Yield all rows, oldest first."""
        for row in self._connection.execute(f"SELECT {', '.join(Row._fields)} FROM history ORDER BY revision"):
            yield Row._make(row)

    def marks(self) -> dict[str, int]:
        """Return the named revisions: `compacted`, `high_water`."""
        return dict(self._connection.execute("SELECT name, revision FROM mark"))

    def commit(self, rows: Sequence[Row], garbage: Sequence[int], marks: dict[str, int]) -> None:
        """Insert rows, delete those at the revisions `garbage`, set marks: all durable, or none and StoreError."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO history VALUES (?, ?, ?, ?, ?)", rows)
            connection.executemany("DELETE FROM history WHERE revision = ?", ((row,) for row in garbage))
            connection.executemany("INSERT OR REPLACE INTO mark VALUES (?, ?)", marks.items())
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            cure = "; free some space on that disk" if "full" in str(error) else ""
            raise StoreError(f"cannot write {self._path}: {error}{cure}") from error

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it."""
        self._connection.close()
