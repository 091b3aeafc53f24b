"""Any sequence of operations leaves the store as it leaves a dictionary with a list of its past, also over restarts."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minikube_raw.store.kv import EventType, RevisionConflict
from minikube_raw.store.sqlite import SQLiteStore

_KEYS = st.sampled_from(["/a/1", "/a/2", "/b/1"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _KEYS, st.binary(max_size=3), st.booleans()),
        st.tuples(st.just("lazy"), _KEYS, st.binary(max_size=3), st.booleans()),
        st.tuples(st.just("delete"), _KEYS, st.just(b""), st.booleans()),
        st.tuples(st.just("compact"), st.just(""), st.just(b""), st.just(True)),
        st.tuples(st.just("restart"), st.just(""), st.just(b""), st.just(True)),
    ),
    max_size=25,
)


class Model:
    """The present as a dictionary, and what it was after each revision."""

    def __init__(self):
        self.now: dict[str, tuple[bytes, int, int]] = {}
        self.past: list[tuple[int, dict]] = [(0, {})]

    def write(self, key, value, revision):
        created = self.now[key][1] if key in self.now else revision
        self.now = {**self.now, key: (value, created, revision)} if value is not None else dict(self.now)
        if value is None:
            del self.now[key]
        self.past.append((revision, self.now))

    def expect(self, key, right):
        revision = self.now[key][2] if key in self.now else 0
        return revision if right else revision + 7


def seen(result):
    return {kv.key: (kv.value, kv.create_revision, kv.mod_revision) for kv in result.kvs}


async def _step(store, model, kind, key, value, right):
    expect = model.expect(key, right)
    try:
        if kind == "delete":
            revision = await store.delete(key, expect=expect)
        else:
            revision = await store.put(key, value, expect=expect, lazy=kind == "lazy")
    except RevisionConflict as conflict:
        current = conflict.current
        assert (current and (current.value, current.create_revision, current.mod_revision)) == model.now.get(key)
        assert not right or (kind == "delete" and key not in model.now)
        return
    assert right
    assert revision > model.past[-1][0]
    model.write(key, None if kind == "delete" else value, revision)


async def _check(store, model):
    assert seen(await store.range("/")) == model.now
    assert seen(await store.range("/a/")) == {k: v for k, v in model.now.items() if k.startswith("/a/")}
    for revision, states in model.past:
        if revision >= max(store.compacted, 1):
            assert seen(await store.range("/", revision=revision)) == states


async def _replay(store, model):
    """The events after the oldest revision still known, applied to what was then, give what is now."""
    start = max(store.compacted, 1)
    if model.past[-1][0] <= start:
        return
    states = dict([states for revision, states in model.past if revision <= start][-1])
    for event in await anext(store.watch("/", start)):
        if event.type is EventType.DELETE:
            del states[event.kv.key]
        else:
            states[event.kv.key] = (event.kv.value, event.kv.create_revision, event.kv.mod_revision)
    assert states == model.now


async def _run(steps):
    with tempfile.TemporaryDirectory() as directory:
        path, model = Path(directory) / "store.sqlite", Model()
        store = SQLiteStore(path)
        await store.open()
        restarted_lazily = False
        for kind, key, value, right in steps:
            if kind == "restart":
                await store.close()
                store = SQLiteStore(path)
                await store.open()
                restarted_lazily = True
            elif kind == "compact":
                await store.compact(store.revision)
                model.past = [(store.revision, model.now)]
            else:
                await _step(store, model, kind, key, value, right)
            assert seen(await store.range("/")) == model.now
        if not (restarted_lazily and any(step[0] == "lazy" for step in steps)):
            # After a restart the states between two writes of a lazy key to disk are not known any more, by design.
            await _check(store, model)
            await _replay(store, model)
        await store.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_STEPS)
def test_the_store_behaves_like_its_model(steps):
    asyncio.run(_run(steps))
