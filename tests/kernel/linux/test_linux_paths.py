"""Paths inside hostile trees: nothing leads outside, with openat2(2) and with the walk that stands in for it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minikube_raw.linux import files, paths

pytestmark = pytest.mark.root


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[int]:
    """A directory descriptor of a root file system full of links, beside a file that must not be reached."""
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "secret").write_text("inside")
    (root / "etc/passwd").write_text("inside")
    links = {
        "up": "../../../../secret",
        "absolute": "/secret",
        "etc/relative": "passwd",
        "chain": "etc/to-chain",
        "etc/to-chain": "/etc/relative",
        "loop": "loop2",
        "loop2": "loop",
        "into": "etc",
        "dangling": "nowhere",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def read(descriptor: int) -> str:
    with os.fdopen(descriptor, "r") as file:
        return file.read()


@pytest.mark.parametrize(
    "path",
    [
        "/secret",
        "secret",
        "../secret",
        "/../../secret",
        "up",
        "absolute",
        "/etc/passwd",
        "chain",
        "into/../secret",
        "into/passwd",
    ],
)
def test_in_root_every_way_ends_inside(tree: int, path: str) -> None:
    assert read(paths.open_in_root(tree, path, os.O_RDONLY)) == "inside"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/secret", errno.EXDEV),
        ("../secret", errno.EXDEV),
        ("etc/../../secret", errno.EXDEV),
        ("up", errno.EXDEV),
        ("absolute", errno.EXDEV),
        ("chain", errno.EXDEV),
        ("loop", errno.ELOOP),
        ("missing", errno.ENOENT),
        ("dangling", errno.ENOENT),
        ("missing/below", errno.ENOENT),
        ("secret/below", errno.ENOTDIR),
    ],
)
def test_beneath_what_leaves_the_tree_is_an_error(tree: int, path: str, code: int) -> None:
    with pytest.raises(OSError) as refused:
        paths.open_beneath(tree, path, os.O_RDONLY)
    assert refused.value.errno == code


@pytest.mark.parametrize("path", ["secret", "etc/passwd", "etc/relative", "into/passwd", "etc/../secret", "./secret"])
def test_beneath_what_stays_inside_is_opened(tree: int, path: str) -> None:
    assert read(paths.open_beneath(tree, path, os.O_RDONLY)) == "inside"


@pytest.mark.parametrize("path", ["etc/relative", "into/passwd"])
def test_links_can_be_forbidden(tree: int, path: str) -> None:
    with pytest.raises(OSError) as refused:
        paths.open_in_root(tree, path, os.O_RDONLY, resolve=paths.RESOLVE_NO_SYMLINKS)
    assert refused.value.errno == errno.ELOOP


def test_a_link_itself_is_opened_without_following(tree: int) -> None:
    descriptor = paths.open_in_root(tree, "up", os.O_PATH | os.O_NOFOLLOW)
    assert os.readlink("", dir_fd=descriptor) == "../../../../secret"
    os.close(descriptor)


def test_another_file_system_can_be_forbidden() -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(OSError) as refused:
        paths.open_in_root(root, "/proc/self/status", os.O_RDONLY, resolve=paths.RESOLVE_NO_XDEV)
    os.close(root)
    assert refused.value.errno == errno.EXDEV


def test_a_file_can_be_made_in_the_tree_through_a_link(tree: int) -> None:
    os.close(paths.open_in_root(tree, "into/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    assert os.stat("etc/new", dir_fd=tree).st_mode & 0o777 == 0o600


def test_missing_directories_are_made_where_the_links_lead_inside(tree: int) -> None:
    os.close(paths.make_directories_in_root(tree, "into/a/../b/c"))
    assert os.path.isdir(f"/proc/self/fd/{tree}/etc/b/c")
    with pytest.raises(NotADirectoryError):
        paths.make_directories_in_root(tree, "secret/a")
    os.close(paths.make_directories_in_root(tree, "dangling/a"))
    assert os.path.isdir(f"/proc/self/fd/{tree}/nowhere/a")


def test_a_directory_swapped_for_a_link_while_it_is_opened_never_leads_outside(tree: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "volume").mkdir()
    (root / "volume/secret").write_text("inside")
    (root / "evil").symlink_to(tmp_path)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(root / "volume", root / "kept")
            os.rename(root / "evil", root / "volume")
            os.rename(root / "volume", root / "evil")
            os.rename(root / "kept", root / "volume")

    attacker = threading.Thread(target=swap)
    attacker.start()
    found = set()
    try:
        for _ in range(2000):
            try:
                found.add(read(paths.open_in_root(tree, "volume/secret", os.O_RDONLY)))
            except OSError as error:
                found.add(str(error.errno))
    finally:
        stop.set()
        attacker.join()
    assert "outside" not in found


def test_a_file_to_mount_on_is_made_without_waiting_for_what_is_there_by_now(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("elsewhere")

    files.make_empty_file(str(tmp_path / "fifo"))
    with pytest.raises(OSError) as it:
        files.make_empty_file(str(tmp_path / "link"))

    assert it.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()
