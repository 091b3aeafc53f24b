"""A crash between any two steps of a change is put right by the next call, and readers never see half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minikube_raw.kubelet import atomicwriter
from minikube_raw.kubelet.atomicwriter import File, Payload

OLD: Payload = {"a": File(b"old", 0o644), "gone": File(b"x", 0o644), "d/e": File(b"deep", 0o600)}
NEW: Payload = {"a": File(b"new", 0o644), "added": File(b"y", 0o400), "d/f": File(b"deeper", 0o640)}


class Crash(Exception):
    """The process is killed here."""


def visible(root: Path) -> dict[str, bytes]:
    """What a reader sees."""
    found = [path for path in root.rglob("*") if path.is_file() and ".." not in str(path.relative_to(root))]
    return {str(path.relative_to(root)): path.read_bytes() for path in found} | _through_links(root)


def _through_links(root: Path) -> dict[str, bytes]:
    links = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith("..")]
    return {str(p.relative_to(root)): p.read_bytes() for link in links for p in link.rglob("*") if p.is_file()}


def contents(payload: Payload) -> dict[str, bytes]:
    return {name: file.data for name, file in payload.items()}


def steps() -> Iterator[tuple[str, int]]:
    for call, times in (("symlink", 4), ("rename", 4), ("unlink", 1), ("mkdir", 2), ("chmod", 4)):
        yield from ((call, number) for number in range(times))


@pytest.mark.parametrize(("call", "number"), list(steps()))
def test_a_crash_at_any_step_of_a_change_is_repaired_by_the_next(tmp_path, monkeypatch, call, number) -> None:
    atomicwriter.write(tmp_path, OLD)
    real, left = getattr(os, call), [number]

    def crash(*arguments: object, **named: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise Crash
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, crash)
        try:
            atomicwriter.write(tmp_path, NEW)
        except Crash:
            seen = visible(tmp_path)
            assert seen.get("a") in (b"old", b"new")

    atomicwriter.write(tmp_path, NEW)

    assert visible(tmp_path) == contents(NEW)
    hidden = {name for name in os.listdir(tmp_path) if name.startswith("..")}
    assert hidden == {"..data", os.readlink(tmp_path / "..data")}


def test_a_change_that_cannot_be_written_leaves_the_old_files_and_no_rubbish(tmp_path) -> None:
    atomicwriter.write(tmp_path, OLD)
    before = sorted(os.listdir(tmp_path))

    with pytest.raises(OSError, match=r"exists|directory"):
        atomicwriter.write(tmp_path, {"a": File(b"", 0o644), "a/b": File(b"", 0o644)})

    assert sorted(os.listdir(tmp_path)) == before
    assert visible(tmp_path) == contents(OLD)


def test_a_directory_on_which_another_volume_is_mounted_stays(tmp_path) -> None:
    atomicwriter.make_nested(tmp_path, ["sub/deeper"])
    atomicwriter.write(tmp_path, OLD)
    atomicwriter.write(tmp_path, NEW)

    assert (tmp_path / "sub/deeper").is_dir()


def test_unchanged_content_is_not_written_again(tmp_path) -> None:
    atomicwriter.write(tmp_path, OLD)
    before = os.readlink(tmp_path / "..data"), (tmp_path / "a").stat().st_mtime_ns

    assert not atomicwriter.write(tmp_path, OLD)

    assert (os.readlink(tmp_path / "..data"), (tmp_path / "a").stat().st_mtime_ns) == before
