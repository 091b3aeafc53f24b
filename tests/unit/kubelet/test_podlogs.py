"""Reading container logs: tail, since, timestamps, limits, following."""

from __future__ import annotations

import asyncio

import pytest

from minikube_raw.kubelet import podlogs
from minikube_raw.kubelet.watching import FileWatcher

RECORDS = b"""\
2023-11-14T22:13:20.000000001Z stdout F one
2023-11-14T22:13:21.5Z stderr P two-
2023-11-14T22:13:21.6Z stderr F half
2023-11-14T22:13:22.000000000Z stdout F three
"""


async def text(path, *, ended=True, **options) -> str:
    def never() -> asyncio.Event:
        return asyncio.Event()

    return b"".join(
        [each async for each in podlogs.read(str(path), podlogs.LogOptions(**options), lambda: ended, never)]
    ).decode()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, "one\ntwo-half\nthree\n", id="pieces of a line are put together"),
        pytest.param({"tail_lines": 1}, "three\n", id="tail"),
        pytest.param({"tail_lines": 0}, "", id="no line"),
        pytest.param({"tail_lines": 100}, "one\ntwo-half\nthree\n", id="more than there are"),
        pytest.param({"since": "2023-11-14T22:13:22Z"}, "three\n", id="since"),
        pytest.param({"limit_bytes": 5}, "one\nt", id="limit"),
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


async def test_following_sees_what_is_written_and_a_rotation_and_ends_with_the_container(tmp_path) -> None:
    path, watcher, changed, running = tmp_path / "0.log", FileWatcher(), asyncio.Event(), [True]
    path.write_bytes(b"2023-11-14T22:13:20Z stdout F first\n")
    watcher.watch(str(tmp_path), changed.set)

    def next_change() -> asyncio.Event:
        changed.clear()
        return changed

    reading = podlogs.read(str(path), podlogs.LogOptions(follow=True), lambda: not running[0], next_change)
    async with asyncio.timeout(5):
        assert await anext(reading) == b"first\n"
        with path.open("ab") as file:
            file.write(b"2023-11-14T22:13:20Z stdout F second\n")
        assert await anext(reading) == b"second\n"
        path.rename(tmp_path / "0.log.1")
        path.write_bytes(b"2023-11-14T22:13:20Z stdout F third\n")
        assert await anext(reading) == b"third\n"
        running[0] = False
        changed.set()
        assert [chunk async for chunk in reading] == []
    watcher.close()


@pytest.mark.parametrize(
    "query",
    [
        {"tailLines": "-1"},
        {"tailLines": "x"},
        {"sinceSeconds": "0"},
        {"sinceSeconds": "5", "sinceTime": "2023-11-14T22:13:20Z"},
        {"sinceTime": "yesterday"},
        {"limitBytes": "0"},
    ],
)
def test_nonsense_is_refused(query) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        podlogs.parse_options(query, 0)
