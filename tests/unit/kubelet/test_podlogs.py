"""Reading container logs: tail, since, timestamps, limits, following."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path

import pytest

from minikube_raw.kubelet import podlogs
from minikube_raw.kubelet.logfiles import Reading
from minikube_raw.kubelet.watching import FileWatcher

RECORDS = b"""\
2023-11-14T22:13:20.000000001Z stdout F one
2023-11-14T22:13:21.5Z stderr P two-
2023-11-14T22:13:21.6Z stderr F half
2023-11-14T22:13:22.000000000Z stdout F three
"""


class Follower:
    """A container that has ended, until a test says otherwise."""

    def __init__(self) -> None:
        self.ended = True
        self.changed = asyncio.Event()

    def has_ended(self) -> bool:
        return self.ended

    def next_change(self) -> asyncio.Event:
        self.changed.clear()
        return self.changed


async def text(path, **options) -> str:
    reading = Reading(str(path))
    if "tail_lines" in options:
        reading.skip_to_tail(options["tail_lines"])
    chunks = [each async for each in podlogs.read(reading, podlogs.LogOptions(**options), Follower())]
    return b"".join(chunks).decode()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, "one\ntwo-half\nthree\n", id="pieces of a line are put together"),
        pytest.param({"tail_lines": 1}, "three\n", id="tail"),
        pytest.param({"tail_lines": 0}, "", id="no line"),
        pytest.param({"tail_lines": 100}, "one\ntwo-half\nthree\n", id="more than there are"),
        pytest.param({"since": "2023-11-14T22:13:22Z"}, "three\n", id="since"),
        pytest.param({"limit_bytes": 5}, "one\nt", id="limit"),
        pytest.param({"stream": "Stdout"}, "one\nthree\n", id="one stream"),
        pytest.param({"stream": "Stderr"}, "two-half\n", id="the other stream"),
        pytest.param(
            {"timestamps": True, "tail_lines": 1}, "2023-11-14T22:13:22.000000000Z three\n", id="timestamps"
        ),
    ],
)  # fmt: skip
async def test_what_a_client_asks_for(tmp_path, options, expected) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(RECORDS)

    assert await text(path, **options) == expected


async def test_a_record_that_a_crash_cut_off_is_left_out(tmp_path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(RECORDS + b"2023-11-14T22:1")

    assert (await text(path)).endswith("three\n")


async def test_tail_of_a_file_larger_than_one_read(tmp_path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"".join(b"2023-11-14T22:13:20Z stdout F %d\n" % number for number in range(50_000)))

    assert await text(path, tail_lines=10_000) == "".join(f"{number}\n" for number in range(40_000, 50_000))


def record(text: object) -> bytes:
    return b"2023-11-14T22:13:20Z stdout F %s\n" % str(text).encode()


def append(path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def put_away(path, stamp: str, *, compressed: bool = False) -> str:
    """Rename a log as rotation does."""
    name = f"{path}.20231114-{stamp}"
    path.rename(name)
    if compressed:
        with gzip.open(f"{name}.gz", "wb") as target, open(name, "rb") as source:
            target.write(source.read())
        os.unlink(name)
    return name


def write_rotated(path) -> None:
    """Three files of two lines: a compressed one, a rotated one, the current one."""
    path.write_bytes(record(1) + record(2))
    put_away(path, "000001", compressed=True)
    path.write_bytes(record(3) + record(4))
    put_away(path, "000002")
    path.write_bytes(record(5) + record(6))


@pytest.mark.parametrize("tail", [None, 0, 1, 2, 3, 4, 5, 6, 7])
async def test_a_rotated_log_is_read_as_one(tmp_path, tail) -> None:
    write_rotated(tmp_path / "0.log")
    lines = [f"{number}\n" for number in range(1, 7)]

    options = {} if tail is None else {"tail_lines": tail}
    assert await text(tmp_path / "0.log", **options) == "".join(lines if tail is None else lines[6 - min(tail, 6) :])


@pytest.fixture
async def following(tmp_path):
    """Somebody who follows a log, and the means to write and rotate it meanwhile."""
    path, watcher, follower = tmp_path / "0.log", FileWatcher(), Follower()
    follower.ended = False
    path.write_bytes(record("first"))
    reading = Reading(str(path))
    yield path, watcher, follower, reading, podlogs.read(reading, podlogs.LogOptions(follow=True), follower)
    watcher.close()


async def test_following_sees_what_is_written_and_a_rotation_and_ends_with_the_container(following) -> None:
    path, watcher, follower, _, chunks = following
    watcher.watch(str(path.parent), follower.changed.set)
    async with asyncio.timeout(60):
        assert await anext(chunks) == b"first\n"
        append(path, record("second"))
        assert await anext(chunks) == b"second\n"
        path.rename(path.with_name("0.log.1"))
        path.write_bytes(record("third"))
        assert await anext(chunks) == b"third\n"
        follower.ended = True
        follower.changed.set()
        assert [chunk async for chunk in chunks] == []


async def test_a_slow_follower_misses_no_file_of_a_log_that_is_rotated_meanwhile(following) -> None:
    path, _, follower, reading, chunks = following
    async with asyncio.timeout(60):
        assert await anext(chunks) == b"first\n"
        with path.open("ab") as old:  # the keeper's, until it has opened the new one
            reading.rotated_to(put_away(path, "000001"))
            old.write(record("written after the renaming"))
        path.write_bytes(record("second file"))
        reading.rotated_to(put_away(path, "000002", compressed=True))
        path.write_bytes(record("third file"))
        follower.ended = True
        follower.changed.set()
        rest = b"".join([chunk async for chunk in chunks])

    assert rest == b"written after the renaming\nsecond file\nthird file\n"


async def test_following_waits_between_the_renaming_and_the_new_file(following) -> None:
    path, watcher, follower, reading, chunks = following
    watcher.watch(str(path.parent), follower.changed.set)
    async with asyncio.timeout(60):
        assert await anext(chunks) == b"first\n"
        name = put_away(path, "000001")
        reading.rotated_to(name)
        following_on = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        append(Path(name), record("late"))
        assert await following_on == b"late\n"
        path.write_bytes(record("new"))
        assert await anext(chunks) == b"new\n"


async def test_a_rotation_that_was_taken_back_doubles_nothing(following) -> None:
    path, _, follower, reading, chunks = following
    async with asyncio.timeout(60):
        assert await anext(chunks) == b"first\n"
        name = put_away(path, "000001")
        reading.rotated_to(name)
        os.rename(name, path)
        append(path, record("second"))
        follower.ended = True
        follower.changed.set()
        rest = b"".join([chunk async for chunk in chunks])

    assert rest == b"second\n"


@pytest.mark.parametrize(
    "query",
    [
        {"tailLines": "-1"},
        {"tailLines": "x"},
        {"sinceSeconds": "0"},
        {"sinceSeconds": "5", "sinceTime": "2023-11-14T22:13:20Z"},
        {"sinceTime": "yesterday"},
        {"limitBytes": "0"},
        {"stream": "Stdin"},
    ],
)
def test_nonsense_is_refused(query) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        podlogs.parse_options(query, 0)
