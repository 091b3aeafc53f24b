from __future__ import annotations

import os
from pathlib import Path

import pytest

from minikube_raw.runtime import atomic, wire
from minikube_raw.runtime.cri import ContainerConfig, PodSandboxConfig
from minikube_raw.runtime.records import ContainerRecord, ExitRecord, SandboxRecord, Shelf


@pytest.mark.parametrize("size", [pytest.param(10, id="inline"), pytest.param(900_000, id="too big for a packet")])
def test_a_packet_arrives_whole_with_its_descriptors(size: int) -> None:
    ours, theirs = wire.pair()
    reader, writer = os.pipe()
    wire.send(ours, {"body": "x" * size, "é": [1, None]}, [writer])
    os.close(writer)
    message, received = wire.receive(theirs)
    assert message == {"body": "x" * size, "é": [1, None]}
    assert len(received) == 1
    assert not os.get_inheritable(received[0])
    os.write(received[0], b"through")
    assert os.read(reader, 100) == b"through"
    wire.close([reader, *received])
    ours.close()
    with pytest.raises(wire.Closed):
        wire.receive(theirs)
    theirs.close()


def test_too_many_descriptors_are_an_error_and_nothing_is_sent() -> None:
    ours, theirs = wire.pair()
    with pytest.raises(OSError, match="descriptors do not fit"):
        wire.send(ours, {}, [0] * (wire.MOST_DESCRIPTORS + 1))
    ours.close()
    with pytest.raises(wire.Closed):
        wire.receive(theirs)
    theirs.close()


def test_a_socket_below_a_long_path_is_bound_and_found_and_replaces_a_dead_one(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = str(directory / "keeper.sock")
    wire.listen(path).close()
    with pytest.raises(ConnectionRefusedError):
        wire.connect(path)
    with wire.listen(path) as listener, wire.connect(path) as ours:
        assert os.stat(path).st_mode & 0o777 == 0o600
        theirs = wire.accept(listener)
        assert (theirs is not None) == (os.geteuid() == 0)
        if theirs is not None:
            wire.send(ours, {"op": "hello"})
            assert wire.receive(theirs) == ({"op": "hello"}, [])
            theirs.close()


def test_a_write_that_was_interrupted_leaves_the_old_record(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), ExitRecord)
    shelf.write("a", ExitRecord(exit_code=1, finished_at=2), sync=True)
    (tmp_path / "a.json.99.tmp").write_text('{"exit_')
    assert shelf.load() == ({"a": ExitRecord(exit_code=1, finished_at=2)}, [])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_last_whole_line_of_a_record_counts(tmp_path: Path) -> None:
    shelf, path = Shelf(str(tmp_path), ExitRecord), tmp_path / "a.json"
    shelf.write("a", ExitRecord(exit_code=1, finished_at=1))
    for code in (2, 3):
        shelf.write("a", ExitRecord(exit_code=code, finished_at=1))
    inode = path.stat().st_ino
    assert shelf.read("a") == ExitRecord(exit_code=3, finished_at=1)

    with path.open("a") as file:
        file.write('\n{"exit_co')  # a power cut
    assert shelf.load() == ({"a": ExitRecord(exit_code=3, finished_at=1)}, [])
    shelf.write("a", ExitRecord(exit_code=4, finished_at=1))
    assert Shelf(str(tmp_path), ExitRecord).read("a") == ExitRecord(exit_code=4, finished_at=1)
    assert path.stat().st_ino == inode


def test_a_record_that_changes_for_ever_stays_small(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), ExitRecord)
    for code in range(50):
        shelf.write("a", ExitRecord(exit_code=code, finished_at=1, message="x" * 10_000))
        assert (tmp_path / "a.json").stat().st_size <= 256 * 1024
    assert shelf.load()[0]["a"].exit_code == 49


@pytest.mark.parametrize(
    "content",
    [
        pytest.param('{"exit_code": 1', id="half"),
        pytest.param('{"exit_code": "x"}', id="foreign"),
    ],
)
def test_a_record_that_cannot_be_read_is_set_aside_not_lost(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    shelf = Shelf(str(tmp_path), ExitRecord)
    shelf.write("good", ExitRecord(exit_code=0, finished_at=1))
    found, problems = shelf.load()
    assert list(found) == ["good"]
    assert len(problems) == 1
    assert "bad.json" in problems[0]
    assert (tmp_path / "bad.json.unreadable").read_text() == content
    assert shelf.read("bad") is None
    assert shelf.load()[1] == []
    assert [path.name for path in tmp_path.iterdir()] == ["good.json"]


SANDBOX = SandboxRecord("s", PodSandboxConfig("p", "default", "u"), "kubepods/podu", "boot", 1)
CONTAINER = ContainerRecord("c", "s", ContainerConfig("main", 0, "i"), {"id": "c"}, "boot", 2, started_at=3)


@pytest.mark.parametrize("record", [SANDBOX, CONTAINER, ExitRecord(exit_code=1, finished_at=2)])
def test_of_a_record_cut_off_anywhere_nothing_is_believed_and_the_next_one_is_whole(
    tmp_path: Path, record: SandboxRecord | ContainerRecord | ExitRecord
) -> None:
    shelf = Shelf(str(tmp_path), type(record))
    shelf.write("r", record)
    whole = (tmp_path / "r.json").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "r.json").write_bytes(whole[:length])
        found, problems = shelf.load()
        assert (found, len(problems)) == ({}, 1)
        shelf.write("r", record)
        assert shelf.load() == ({"r": record}, [])
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_removing_a_record_twice_is_fine(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), ExitRecord)
    shelf.write("a", ExitRecord(exit_code=0, finished_at=1))
    shelf.remove("a")
    shelf.remove("a")
    assert shelf.load() == ({}, [])


def test_json_that_is_no_object_is_refused(tmp_path: Path) -> None:
    atomic.write(str(tmp_path / "x"), b"[]")
    with pytest.raises(ValueError, match="JSON object"):
        atomic.read_json(str(tmp_path / "x"))
    assert atomic.read_json(str(tmp_path / "missing")) is None
