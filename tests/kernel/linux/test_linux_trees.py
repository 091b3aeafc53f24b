"""Trees that others have filled: given to a group and removed, through no link and over no mount."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from minikube_raw.linux import mounts, removal, tree_owners

pytestmark = pytest.mark.root


def look(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_gid, stat.S_IMODE(found.st_mode)


def test_a_group_gets_files_directories_and_links_but_not_what_links_point_at(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.write_text("")
    (tree / "d/e").mkdir(parents=True)
    (tree / "d/e/file").write_text("")
    (tree / "d/e/file").chmod(0o600)
    (tree / "d/link").symlink_to(outside)
    before = look(outside)

    tree_owners.give_to_group(str(tree), 2000)

    assert look(tree / "d/e/file") == (2000, 0o660)
    assert look(tree / "d/e") == (2000, 0o2775)
    assert (tree / "d/link").lstat().st_gid == 2000
    assert look(outside) == before
    assert tree_owners.belongs_to_group(str(tree), 2000)


def test_a_group_that_may_only_read_gets_no_write_permission(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("")
    (tmp_path / "tree/file").chmod(0o400)

    tree_owners.give_to_group(str(tmp_path / "tree"), 2000, readonly=True)

    assert look(tmp_path / "tree/file") == (2000, 0o440)


def deep(directory: Path, levels: int) -> None:
    """Makes a tree that is deeper than paths, frames and descriptors are."""
    current = os.open(directory, os.O_PATH)
    for _ in range(levels):
        os.mkdir("d", dir_fd=current)
        below = os.open("d", os.O_PATH, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    deep(tmp_path / "tree", 3000)

    assert removal.put_aside(str(tmp_path / "tree"), str(tmp_path / "trash"))
    assert removal.empty_trash(str(tmp_path / "trash"))

    assert list(tmp_path.iterdir()) == []


def test_removal_enters_no_mount_and_follows_no_link(tmp_path: Path, in_child, kernel_features: str) -> None:
    victim, tree = tmp_path / "victim", tmp_path / "tree"
    (victim / "kept").mkdir(parents=True)
    (tree / "mounted").mkdir(parents=True)
    (tree / "link").symlink_to(victim)

    def check() -> None:
        if kernel_features == "every feature":
            mounts.bind(str(victim), str(tree / "mounted"))  # of the same file system: no device number tells
        else:
            mounts.tmpfs(str(tree / "mounted"))
            (tree / "mounted/kept").mkdir()
        removal.put_aside(str(tree), str(tmp_path / "trash"))
        assert not removal.empty_trash(str(tmp_path / "trash"))
        (left,) = (tmp_path / "trash").glob("removed-*")
        assert [path.name for path in left.iterdir()] == ["mounted"]
        assert (left / "mounted/kept").is_dir()

    in_child(check)
    assert (victim / "kept").is_dir()


def test_many_files_are_left_to_a_process_of_idle_priority(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(2500):
        (tmp_path / "tree" / str(number)).touch()
    removal.put_aside(str(tmp_path / "tree"), str(tmp_path / "trash"))

    process = removal.start_emptying(str(tmp_path / "trash"))

    assert process is not None
    assert process.wait(30) == 0
    assert list(tmp_path.iterdir()) == []


def test_what_was_put_aside_before_a_crash_is_found_by_the_next_call(tmp_path: Path) -> None:
    assert not removal.put_aside(str(tmp_path / "nothing"), str(tmp_path / "trash"))
    (tmp_path / "tree/d").mkdir(parents=True)
    removal.put_aside(str(tmp_path / "tree"), str(tmp_path / "trash"))

    assert removal.start_emptying(str(tmp_path / "trash")) is None
    assert not (tmp_path / "trash").exists()


@pytest.mark.parametrize("lay", [Path.touch, lambda place: place.symlink_to("nowhere")], ids=["file", "dangling link"])
def test_what_lies_in_the_place_of_the_trash_is_in_nobodys_way(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    (tmp_path / "tree/d").mkdir(parents=True)
    lay(tmp_path / "trash")
    assert removal.put_aside(str(tmp_path / "tree"), str(tmp_path / "trash"))
    assert removal.empty_trash(str(tmp_path / "trash"))

    lay(tmp_path / "trash")
    assert removal.empty_trash(str(tmp_path / "trash"))
    assert not removal.put_aside(str(tmp_path / "tree"), str(tmp_path / "trash"))


def test_what_is_put_aside_while_the_trash_is_emptied_is_put_aside(tmp_path: Path) -> None:
    trash, over = tmp_path / "trash", threading.Event()

    def empty() -> None:
        while not over.is_set():
            removal.empty_trash(str(trash))

    emptying = threading.Thread(target=empty)
    emptying.start()
    try:
        for number in range(2000):
            (tmp_path / f"pod{number}").mkdir()
            assert removal.put_aside(str(tmp_path / f"pod{number}"), str(trash))
    finally:
        over.set()
        emptying.join()
