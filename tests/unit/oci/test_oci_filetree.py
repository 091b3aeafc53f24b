"""The tree a layer is written from: links resolve inside the image, and the same tree gives the same bytes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from minikube_raw.oci import mtree
from minikube_raw.oci.filetree import FileTree, Node, directory, symlink
from minikube_raw.oci.rooted import EscapeError, LowerLayers

FILE = Node(tarfile.REGTYPE, 0o644, data=b"data")


def members(tree: FileTree) -> dict[str, tuple[bytes, int]]:
    buffer = io.BytesIO()
    tree.write_tar(buffer, mtime=0)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        return {member.name: (member.type, member.mode) for member in tar}


def test_parents_are_made_and_links_followed_inside_the_image(tmp_path: Path) -> None:
    (tmp_path / "base/usr/lib").mkdir(parents=True)
    (tmp_path / "base/lib").symlink_to("usr/lib")
    tree = FileTree(LowerLayers([tmp_path / "base"]))
    tree.put("/bin", symlink("/usr/bin"))

    tree.put("/bin/tool", FILE)
    tree.put("lib/x/libc.so", FILE)
    tree.put("/lib", directory())

    assert list(members(tree)) == ["bin", "usr", "usr/bin", "usr/bin/tool", "usr/lib", "usr/lib/x", "usr/lib/x/libc.so"]
    assert tree.is_directory("/bin")
    assert not tree.is_directory("/bin/tool")


def test_the_order_of_putting_does_not_change_a_byte() -> None:
    written = []
    for names in (("a", "b/c", "b"), ("b", "b/c", "a")):
        tree = FileTree()
        for name in names:
            tree.put(name, directory(0o700) if name == "b" else FILE)
        buffer = io.BytesIO()
        tree.write_tar(buffer, mtime=7)
        written.append(buffer.getvalue())
    assert written[0] == written[1]


@pytest.mark.parametrize("loop", [("a", "b"), ("a", "a")])
def test_links_in_a_circle_are_refused(loop: tuple[str, str]) -> None:
    tree = FileTree()
    tree.put("a", symlink(loop[1]))
    tree.put("b", symlink("a"))
    with pytest.raises(EscapeError, match="too many links"):
        tree.put("a/f", FILE)


def test_a_file_is_no_parent() -> None:
    tree = FileTree()
    tree.put("f", FILE)
    with pytest.raises(EscapeError, match="not a directory"):
        tree.put("f/g", FILE)


def test_mtree_entries_with_defaults_and_escapes(tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello")
    specification = tmp_path / "x.mtree"
    specification.write_text(
        "#mtree\n/set type=dir mode=0755\n./a\\040b\n./tmp mode=1777 uid=5 gid=6\n"
        "/set type=link link=busybox\n./bin/sh\n/unset link\n./motd type=file mode=0600 contents=motd\n./empty type=file\n"
    )

    entries = dict(mtree.read(specification))

    assert entries["./a b"] == directory()
    assert entries["./tmp"] == directory(0o1777, 5, 6)
    assert entries["./bin/sh"] == symlink("busybox")
    assert (entries["./motd"].mode, entries["./motd"].source) == (0o600, tmp_path / "motd")
    assert entries["./empty"].data == b""


@pytest.mark.parametrize(
    "line", ["./a", "./a type=block", "./a type=dir flags=uchg", "./a type=dir mode=rwx", "./a type=file contents=gone"]
)
def test_an_mtree_line_that_is_wrong_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.mtree").write_text(f"#mtree\n\n{line}\n")
    with pytest.raises(mtree.MtreeError, match=r"x\.mtree, line 3"):
        list(mtree.read(tmp_path / "x.mtree"))
