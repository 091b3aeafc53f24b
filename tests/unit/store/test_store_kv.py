"""The key-value protocol: compare-and-swap, ranges now and then, watches, compaction."""

import asyncio

import pytest

from minikube_raw.store.kv import Compacted, EventType, FutureRevision, RevisionConflict, StoreError
from minikube_raw.store.sqlite import SQLiteStore


async def fill(store, *keys):
    return [await store.put(key, key.encode(), expect=0) for key in keys]


def names(result):
    return [kv.key for kv in result.kvs]


async def test_a_created_key_has_its_creation_as_both_revisions(store):
    revision = await store.put("/a", b"1", expect=0)
    assert await store.get("/a") == ("/a", b"1", revision, revision)
    assert store.revision == revision


async def test_an_update_keeps_the_creation_and_raises_the_revision(store):
    created = await store.put("/a", b"1", expect=0)
    updated = await store.put("/a", b"2", expect=created)
    assert updated > created
    assert await store.get("/a") == ("/a", b"2", created, updated)


@pytest.mark.parametrize("expect", [0, 999])
async def test_a_write_against_another_state_is_refused_and_told_what_stands_there(store, expect):
    revision = await store.put("/a", b"1", expect=0)
    with pytest.raises(RevisionConflict) as refused:
        await store.put("/a", b"2", expect=expect)
    assert refused.value.current.mod_revision == revision
    with pytest.raises(RevisionConflict):
        await store.delete("/a", expect=999)
    assert (await store.get("/a")).value == b"1"


async def test_writing_or_deleting_what_is_not_there_is_a_conflict_with_nothing(store):
    for write in (store.put("/a", b"", expect=3), store.delete("/a", expect=3), store.delete("/a", expect=0)):
        with pytest.raises(RevisionConflict) as refused:
            await write
        assert refused.value.current is None


async def test_of_many_writers_at_once_exactly_one_wins(store):
    results = await asyncio.gather(*(store.put("/a", b"%d" % i, expect=0) for i in range(50)), return_exceptions=True)
    winners = [result for result in results if isinstance(result, int)]
    assert len(winners) == 1
    assert all(isinstance(result, (int, RevisionConflict)) for result in results)
    assert (await store.get("/a")).mod_revision == winners[0]


async def test_a_key_may_be_created_again_after_its_deletion_in_the_same_turn(store):
    first = await store.put("/a", b"1", expect=0)
    deleted, again = await asyncio.gather(store.delete("/a", expect=first), store.put("/a", b"2", expect=0))
    assert first < deleted < again
    assert await store.get("/a") == ("/a", b"2", again, again)


async def test_a_range_takes_a_prefix_in_order_and_pages_through_it(store):
    await fill(store, "/b/2", "/b/1", "/a/1", "/b/3", "/c")
    page = await store.range("/b/", limit=2)
    assert (names(page), page.remaining) == (["/b/1", "/b/2"], 1)
    rest = await store.range("/b/", start=page.kvs[-1].key + "\0", limit=2, revision=page.revision)
    assert (names(rest), rest.remaining) == (["/b/3"], 0)
    assert names(await store.range("/nope/")) == []


async def test_a_range_at_a_revision_shows_what_was(store):
    first, second = await fill(store, "/a/1", "/a/2")
    await store.delete("/a/1", expect=first)
    await store.put("/a/2", b"new", expect=second)
    (third,) = await fill(store, "/a/3")
    past = await store.range("/a/", revision=second)
    assert [(kv.key, kv.value) for kv in past.kvs] == [("/a/1", b"/a/1"), ("/a/2", b"/a/2")]
    assert past.revision == second
    assert names(await store.range("/a/", revision=second, start="/a/2", limit=1)) == ["/a/2"]
    assert names(await store.range("/a/", revision=third)) == ["/a/2", "/a/3"]
    assert names(await store.range("/a/", revision=first)) == ["/a/1"]


async def test_the_future_is_not_known(store):
    with pytest.raises(FutureRevision):
        await store.range("/", revision=store.revision + 1)
    with pytest.raises(FutureRevision):
        await store.compact(store.revision + 1)


async def test_a_watch_sees_every_change_of_its_prefix_in_order(store):
    watch = store.watch("/a/")
    (created,) = await fill(store, "/a/1")
    await fill(store, "/b/1")
    updated = await store.put("/a/1", b"2", expect=created)
    deleted = await store.delete("/a/1", expect=updated)
    events = []
    async for batch in watch:
        events += batch
        if len(events) == 3:
            break
    await watch.aclose()
    assert [(event.type, event.kv.mod_revision) for event in events] == [
        (EventType.PUT, created),
        (EventType.PUT, updated),
        (EventType.DELETE, deleted),
    ]
    assert [event.prev and event.prev.mod_revision for event in events] == [None, created, updated]
    assert events[2].kv.value == b""
    assert events[2].prev.value == b"2"


async def test_a_watch_from_a_revision_starts_with_what_it_missed(store):
    first, _ = await fill(store, "/a/1", "/a/2")
    watch = store.watch("/a/", first)
    await fill(store, "/a/3")
    events = await anext(watch)
    assert [event.kv.key for event in events] == ["/a/2", "/a/3"]


async def test_a_watch_from_the_future_starts_there(store):
    (first,) = await fill(store, "/a/1")
    watch = store.watch("/a/", first + 1)
    await fill(store, "/a/2", "/a/3")
    assert [event.kv.key for event in await anext(watch)] == ["/a/3"]


async def test_a_closed_watch_wakes_its_reader_and_gets_nothing_more(store):
    watch = store.watch("/a/")
    reader = asyncio.create_task(anext(watch, None))
    await asyncio.sleep(0)
    await watch.aclose()
    assert await reader is None
    await fill(store, "/a/1")
    assert await anext(watch, None) is None


async def test_closing_the_store_ends_watches_after_what_they_have(path):
    store = SQLiteStore(path)
    await store.open()
    watch = store.watch("/")
    await fill(store, "/a")
    await store.close()
    assert [len(batch) async for batch in watch] == [1]
    with pytest.raises(StoreError):
        await store.put("/b", b"", expect=0)


async def test_a_watch_whose_reader_is_too_slow_is_cut_off(path):
    store = SQLiteStore(path, watch_bytes=1000)
    await store.open()
    slow, quick = store.watch("/"), store.watch("/")
    for key in ("/a", "/b", "/c"):
        await store.put(key, b"x" * 600, expect=0)
        assert len(await anext(quick)) == 1
    with pytest.raises(Compacted):
        await anext(slow)
    await store.close()


async def test_compaction_forgets_the_past_and_keeps_the_present(store):
    first, second, third = await fill(store, "/a", "/b", "/c")
    deleted = await store.delete("/a", expect=first)
    await store.compact(third)
    assert names(await store.range("/")) == ["/b", "/c"]
    assert names(await store.range("/", revision=third)) == ["/a", "/b", "/c"]
    with pytest.raises(Compacted) as refused:
        await store.range("/", revision=second)
    assert refused.value.revision == third
    with pytest.raises(Compacted):
        store.watch("/", second)
    assert [event.kv.mod_revision for event in await anext(store.watch("/", third))] == [deleted]


async def test_history_is_bounded_by_itself(path):
    store = SQLiteStore(path, history_bytes=10_000)
    await store.open()
    first = revision = await store.put("/a", b"x" * 1000, expect=0)
    for _ in range(20):
        revision = await store.put("/a", b"x" * 1000, expect=revision)
    with pytest.raises(Compacted):
        store.watch("/", first)
    assert len((await store.range("/", revision=revision - 3)).kvs) == 1
    await store.close()
