"""What the SQLite file promises: what was acknowledged is there again, heartbeats are cheap, strange files are refused."""

import asyncio
import os
import shutil
import signal
import sqlite3
import sys

import pytest

from minikube_raw.store import database
from minikube_raw.store.kv import Compacted, FutureRevision, RevisionConflict, StoreError
from minikube_raw.store.sqlite import SQLiteStore


async def opened(path, **options):
    store = SQLiteStore(path, **options)
    await store.open()
    return store


def rows(path):
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        found = connection.execute("SELECT key, revision FROM history ORDER BY revision").fetchall()
    connection.close()
    return found


async def test_a_reopened_store_has_the_present_the_past_and_goes_on_counting(path):
    store = await opened(path)
    first = await store.put("/a", b"1", expect=0)
    second = await store.put("/a", b"2", expect=first)
    third = await store.put("/b", b"1", expect=0)
    deleted = await store.delete("/b", expect=third)
    await store.close()
    await store.close()

    store = await opened(path)
    assert store.revision == deleted
    assert await store.get("/a") == ("/a", b"2", first, second)
    assert [kv.key for kv in (await store.range("/", revision=third)).kvs] == ["/a", "/b"]
    assert [event.kv.mod_revision for event in await anext(store.watch("/", first))] == [second, third, deleted]
    assert await store.put("/b", b"2", expect=0) == deleted + 1
    await store.close()


async def test_compacted_history_leaves_the_file(path):
    store = await opened(path)
    first = await store.put("/a", b"1", expect=0)
    second = await store.put("/a", b"2", expect=first)
    third = await store.put("/b", b"1", expect=0)
    fourth = await store.delete("/b", expect=third)
    await store.compact(fourth)
    await store.put("/c", b"", expect=0)
    await store.close()
    assert rows(path) == [("/a", second), ("/c", fourth + 1)]
    store = await opened(path)
    with pytest.raises(Compacted):
        store.watch("/", third)
    await store.close()


async def test_a_lazy_update_is_seen_at_once_and_written_at_close(path):
    store = await opened(path)
    created = revision = await store.put("/lease", b"0", expect=0, lazy=True)
    watch = store.watch("/lease")
    for beat in range(1, 4):
        revision = await store.put("/lease", b"%d" % beat, expect=revision, lazy=True)
        assert [event.kv.value for event in await anext(watch)] == [b"%d" % beat]
    with pytest.raises(RevisionConflict):
        await store.put("/lease", b"x", expect=1, lazy=True)
    await store.close()
    assert len(rows(path)) == 2, "the creation and the last beat, nothing between"
    store = await opened(path)
    assert await store.get("/lease") == ("/lease", b"3", created, revision)
    assert store.revision == revision
    await store.close()


async def test_a_lazy_update_reaches_the_disk_after_a_while(path):
    store = await opened(path, lazy_seconds=0.01)
    created = await store.put("/lease", b"0", expect=0, lazy=True)
    beat = await store.put("/lease", b"1", expect=created, lazy=True)
    saved = asyncio.Event()
    commit = store._database.commit
    store._database.commit = lambda *batch: (commit(*batch), store._loop.call_soon_threadsafe(saved.set))
    await saved.wait()
    assert [row.revision for row in store._database.rows()] == [created, beat]
    await store.compact(beat)
    await store.close()
    assert rows(path) == [("/lease", beat)]


async def test_a_revision_shown_for_a_lazy_update_is_not_given_out_again_after_a_crash(path):
    store = await opened(path)
    created = await store.put("/lease", b"0", expect=0, lazy=True)
    shown = await store.put("/lease", b"1", expect=created, lazy=True)
    crashed = path.with_name("crashed.sqlite")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    await store.close()

    store = await opened(crashed)
    assert (await store.get("/lease")).value == b"0"
    assert store.revision >= shown
    assert await store.put("/lease", b"2", expect=created) > shown
    await store.close()


async def test_a_durable_write_or_a_deletion_may_follow_lazy_ones(path):
    store = await opened(path)
    created = await store.put("/lease", b"0", expect=0, lazy=True)
    lazy = await store.put("/lease", b"1", expect=created, lazy=True)
    durable = await store.put("/lease", b"2", expect=lazy)
    lazy = await store.put("/lease", b"3", expect=durable, lazy=True)
    deleted = await store.delete("/lease", expect=lazy)
    await store.compact(deleted)
    await store.close()
    assert rows(path) == []


class SlowDisk:
    """A database whose commits wait until they are let go, or fail."""

    def __init__(self, inner):
        self.inner = inner
        self.let_go = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.error = None

    def commit(self, *batch):
        asyncio.run_coroutine_threadsafe(self.let_go.wait(), self.loop).result()
        if self.error:
            raise self.error
        self.inner.commit(*batch)

    def close(self):
        self.inner.close()


async def test_a_slow_disk_delays_writers_but_neither_readers_nor_heartbeats(path):
    store = await opened(path)
    lease = await store.put("/lease", b"0", expect=0, lazy=True)
    lease = await store.put("/lease", b"1", expect=lease, lazy=True)
    store._database = disk = SlowDisk(store._database)
    writer = asyncio.create_task(store.put("/a", b"1", expect=0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    lease = await store.put("/lease", b"2", expect=lease, lazy=True)
    assert (await store.range("/")).revision == lease
    assert [kv.key for kv in (await store.range("/")).kvs] == ["/lease"], "nobody sees what is not durable"
    assert not writer.done()

    disk.let_go.set()
    assert await writer > lease
    await store.close()


async def test_a_failed_commit_is_told_to_each_writer_and_leaves_no_trace(path):
    store = await opened(path)
    first = await store.put("/a", b"1", expect=0)
    watch = store.watch("/")
    store._database = disk = SlowDisk(store._database)
    disk.let_go.set()
    disk.error = StoreError("cannot write: database or disk is full")
    answers = await asyncio.gather(
        store.put("/a", b"2", expect=first), store.put("/b", b"1", expect=0), return_exceptions=True
    )
    assert [str(answer) for answer in answers] == ["cannot write: database or disk is full"] * 2
    assert store.revision == first
    assert [kv.value for kv in (await store.range("/")).kvs] == [b"1"]

    disk.error = None
    second = await store.put("/a", b"3", expect=first)
    assert [event.kv.mod_revision for event in await anext(watch)] == [second]
    await store.close()


async def test_writers_of_one_moment_share_a_commit(path, monkeypatch):
    commits = []
    commit = database.Database.commit
    monkeypatch.setattr(database.Database, "commit", lambda self, *batch: (commits.append(batch), commit(self, *batch)))
    store = await opened(path)
    await asyncio.gather(*(store.put(f"/{i}", b"", expect=0) for i in range(100)))
    assert len(commits) == 1
    await store.close()


async def test_a_writer_that_gave_up_does_not_disturb_the_others(store):
    gone = asyncio.create_task(store.put("/gone", b"", expect=0))
    stays = asyncio.create_task(store.put("/stays", b"", expect=0))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert await store.get("/gone") is not None, "it was on its way"


def _sqlite(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        pytest.param(
            lambda p: p.write_bytes(b"hello " * 1000), "restore a backup or move the file away", id="not a database"
        ),
        pytest.param(lambda p: _sqlite(p, "CREATE TABLE t (a)"), "choose another state directory", id="foreign"),
        pytest.param(
            lambda p: _sqlite(p, f"PRAGMA application_id = {database.APPLICATION_ID}", "PRAGMA user_version = 99"),
            "install the newer version",
            id="newer",
        ),
        pytest.param(lambda p: p.mkdir(), "check that the directory is writable", id="a directory"),
    ],
)
async def test_a_file_that_is_not_ours_is_refused_with_the_cure_and_left_alone(path, make, cure):
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=cure):
        await SQLiteStore(path).open()
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_a_damaged_page_is_noticed_at_open(path):
    store = await opened(path)
    for i in range(200):
        await store.put(f"/{i}", b"x" * 500, expect=0)
    await store.close()
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 8192)
    with pytest.raises(StoreError, match="damaged"):
        await SQLiteStore(path).open()


async def test_a_store_in_use_is_refused(path, store):
    with pytest.raises(StoreError, match="in use by another process"):
        await SQLiteStore(path).open()


async def test_an_empty_file_left_by_a_crash_is_taken(path):
    path.touch()
    store = await opened(path)
    assert await store.put("/a", b"", expect=0) == 1
    with pytest.raises(FutureRevision):
        await store.range("/", revision=2)
    await store.close()


_WRITERS = """
import asyncio, sys
from pathlib import Path
from minikube_raw.store.sqlite import SQLiteStore

async def write(store, writer):
    revision = await store.put(f"/{writer}", b"0", expect=0)
    for count in range(1, 10**6):
        sys.stdout.write(f"{writer} {count - 1}\\n"); sys.stdout.flush()
        revision = await store.put(f"/{writer}", b"%d" % count, expect=revision)

async def main():
    store = SQLiteStore(Path(sys.argv[1]))
    await store.open()
    await asyncio.gather(*(write(store, writer) for writer in range(16)))

asyncio.run(main())
"""


async def test_kill_9_loses_no_acknowledged_write(path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITERS, str(path), stdout=asyncio.subprocess.PIPE
    )
    acknowledged: dict[str, int] = {}
    while sum(acknowledged.values()) < 2000:
        writer, count = (await process.stdout.readline()).decode().split()
        acknowledged[writer] = int(count)
    os.kill(process.pid, signal.SIGKILL)
    for line in (await process.stdout.read()).decode().splitlines(keepends=True):
        if line.endswith("\n"):
            writer, count = line.split()
            acknowledged[writer] = int(count)
    await process.wait()

    store = await opened(path)
    states = {kv.key.strip("/"): int(kv.value) for kv in (await store.range("/")).kvs}
    assert all(states[writer] >= count for writer, count in acknowledged.items())
    assert all(states[writer] <= count + 1 for writer, count in acknowledged.items()), "nothing came from nowhere"
    await store.close()
