"""Unpacking a layer: what a good one becomes, and that a hostile one reaches nothing outside its directory."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from image_archives import Tar

from minikube_raw.oci.layers import DEFAULT_LIMITS, LayerError, Limits, unpack_layer
from minikube_raw.oci.rooted import OPAQUE, is_opaque, is_whiteout

pytestmark = pytest.mark.root
DEEP = "/".join(["d"] * 300)


def unpack(tar: Tar, target: Path, *lowers: Path, limits: Limits = DEFAULT_LIMITS) -> list[str]:
    target.mkdir(exist_ok=True)
    return unpack_layer(io.BytesIO(tar.bytes()), target, lowers=lowers, limits=limits)


def listing(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything below a directory: mode, owner, device, contents or link target."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        data = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_rdev, data)
    return found


def whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


REFUSED = [
    pytest.param(Tar().add("../escaped", data=b"x"), "leads outside", id="parent in the name"),
    pytest.param(Tar().add("a/../../escaped", data=b"x"), "leads outside", id="parent inside the name"),
    pytest.param(Tar().add("/../escaped", data=b"x"), "leads outside", id="parent of the root"),
    pytest.param(Tar().dir(".."), "leads outside", id="the parent as a directory"),
    pytest.param(Tar().hardlink("a", "../outside/secret"), "leads outside", id="hard link by parent"),
    pytest.param(Tar().hardlink("a", "/etc/passwd"), "no file of this layer", id="hard link by absolute name"),
    pytest.param(
        Tar().symlink("l", "/").hardlink("a", "l/outside/secret"),
        "no file of this layer",
        id="hard link through a link",
    ),
    pytest.param(Tar().dir("d").hardlink("a", "d"), "no file of this layer", id="hard link to a directory"),
    pytest.param(Tar().add("a", data=b"x").hardlink("a", "a"), "itself", id="hard link to itself"),
    pytest.param(Tar().add(".wh.b").hardlink("a", "b"), "no file of this layer", id="hard link to a whiteout"),
    pytest.param(Tar().hardlink("a", ".wh.b"), "is a hard link to", id="hard link to a whiteout's name"),
    pytest.param(Tar().hardlink("a", ""), "is a hard link to", id="hard link to the root"),
    pytest.param(Tar().symlink("a", "b").symlink("b", "a").add("a/f"), "too many links", id="links in a circle"),
    pytest.param(Tar().symlink("a", "a/a").add("a/f"), "too many links", id="a link to itself that grows"),
    pytest.param(Tar().add("f", data=b"x").add("f/g", data=b"x"), "not a directory", id="a file as a parent"),
    pytest.param(Tar().add(f"{DEEP}/f"), "directories deep", id="very deep"),
    pytest.param(Tar().add(".wh..", data=b""), "no whiteout", id="whiteout of the directory itself"),
    pytest.param(Tar().add(".wh..."), "no whiteout", id="whiteout of the parent"),
    pytest.param(Tar().add(".wh."), "no whiteout", id="whiteout of nothing"),
    pytest.param(Tar().add(".wh.a/f", data=b"x"), "cannot be a directory", id="a whiteout as a parent"),
    pytest.param(Tar().add(".", data=b"x"), "root of a layer", id="the root as a file"),
    pytest.param(Tar().symlink("./", "/etc"), "root of a layer", id="the root as a link"),
    pytest.param(Tar().add("a", uid=2**32 - 1), "owner outside", id="the owner chown takes as none"),
    pytest.param(Tar().add("a", uid=2**40), "owner outside", id="an owner beyond 32 bits"),
    pytest.param(Tar().add("a\0b", pax_headers={"path": "a\0b"}), "NUL", id="a NUL in a pax name"),
    pytest.param(Tar().add("a", data=b"x", pax_headers={"size": "-5"}), "decimal", id="a negative pax size"),
    pytest.param(Tar().add("a", pax_headers={"x": "y" * (2 << 20)}), "extended header", id="a pax header of 2 MiB"),
    pytest.param(Tar().add("a", kind=b"Z"), "unknown type", id="an unknown type"),
    pytest.param(Tar().raw(b"\xff" * 512), "checksum", id="no tar at all"),
    pytest.param(Tar().add("a", size=5000), "ends inside", id="data cut off"),
    pytest.param(Tar().raw(Tar().add("a").buffer.getvalue()[:200]), "checksum", id="header cut off"),
]


@pytest.mark.parametrize(("tar", "message"), REFUSED)
def test_a_hostile_layer_is_refused_and_touches_nothing_outside(tar: Tar, message: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    before, host = listing(outside), sorted(os.listdir(tmp_path))

    with pytest.raises(LayerError, match=message):
        unpack(tar, tmp_path / "layer")

    assert listing(outside) == before
    assert sorted(os.listdir(tmp_path)) == sorted([*host, "layer"])


def through_link(target: Callable[[Path], str]) -> Callable[[Path], Tar]:
    return lambda outside: Tar().symlink("l", target(outside)).add("l/written", data=b"inside")


CONTAINED = [
    pytest.param(through_link(str), "{outside}/written", id="write through an absolute link"),
    pytest.param(through_link(lambda outside: "../../../../.." + str(outside)), "{outside}/written", id="by parents"),
    pytest.param(
        lambda outside: Tar().symlink("a", "b").symlink("b", str(outside)).add("a/written", data=b"inside"),
        "{outside}/written",
        id="write through two links",
    ),
    pytest.param(
        lambda outside: Tar().dir("d").symlink("d", str(outside)).add("d/written", data=b"inside"),
        "{outside}/written",
        id="a directory becomes a link, then is written through",
    ),
    pytest.param(
        lambda outside: Tar().symlink("secret", f"{outside}/secret").add("secret", data=b"inside"),
        "secret",
        id="a file over a link replaces the link",
    ),
    pytest.param(
        lambda outside: Tar().symlink("l", f"{outside}/secret").hardlink("h", "l").add("h", data=b"inside"),
        "h",
        id="a file over a hard link to a link",
    ),
    pytest.param(
        lambda outside: Tar().add(f"{outside}/written", data=b"inside"), "{outside}/written", id="an absolute name"
    ),
    pytest.param(
        lambda outside: Tar().symlink("l", str(outside)).dir("l/", mode=0o700).add("l/written", data=b"inside"),
        "l/written",
        id="a directory over a link replaces the link",
    ),
    pytest.param(
        lambda outside: Tar().symlink("l", str(outside)).add("l/.wh.secret").add("f", data=b"inside"),
        "f",
        id="a whiteout through a link",
    ),
    pytest.param(
        lambda outside: Tar().symlink("l", str(outside)).add("l/.wh..wh..opq").add("f", data=b"inside"),
        "f",
        id="an opaque mark through a link",
    ),
]


@pytest.mark.parametrize(("make", "where"), CONTAINED)
def test_what_aims_outside_lands_inside(make: Callable[[Path], Tar], where: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    before, mode = listing(outside), outside.stat().st_mode

    unpack(make(outside), tmp_path / "layer")

    landed = tmp_path / "layer" / where.format(outside=str(outside).lstrip("/"))
    assert landed.read_bytes() == b"inside"
    assert (listing(outside), outside.stat().st_mode) == (before, mode)
    assert not is_opaque(outside)


def test_devices_and_overlays_own_xattrs_are_left_out_with_a_line_each(tmp_path: Path) -> None:
    tar = (
        Tar()
        .add("dev/sda", tarfile.BLKTYPE, devmajor=8)
        .add("dev/zero", tarfile.CHRTYPE)
        .dir("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})
        .add("f", pax_headers={"SCHILY.xattr.user.kept": "1", "SCHILY.xattr.user.overlay.opaque": "y"})
    )

    left_out = unpack(tar, tmp_path / "layer")

    assert left_out[:2] == ["device node dev/sda", "device node dev/zero"]
    assert left_out[2:] == ["xattr trusted.overlay.redirect of d/", "xattr user.overlay.opaque of f"]
    assert os.listdir(tmp_path / "layer/dev") == []
    assert os.listxattr(tmp_path / "layer/d") == []
    assert os.listxattr(tmp_path / "layer/f") == ["user.kept"]


def test_limits_stop_entries_and_bytes(tmp_path: Path) -> None:
    many = Tar()
    for number in range(11):
        many.add(f"f{number}")
    with pytest.raises(LayerError, match="more than 10 entries"):
        unpack(many, tmp_path / "many", limits=Limits(entries=10))
    with pytest.raises(LayerError, match="more than 1000 bytes"):
        unpack(Tar().add("a", data=b"x" * 600).add("b", data=b"x" * 600), tmp_path / "large", limits=Limits(bytes=1000))


def test_attributes_are_kept(tmp_path: Path) -> None:
    tar = (
        Tar()
        .dir("d", mode=0o1777, uid=7, gid=8, mtime=1000)
        .add("d/f", data=b"hello", mode=0o4755, uid=1000, gid=100, mtime=2000)
        .symlink("d/l", "f", uid=5, gid=6, mtime=3000)
        .hardlink("d/h", "d/f")
        .add("d/p", tarfile.FIFOTYPE, mode=0o622, uid=9)
    )

    unpack(tar, tmp_path / "layer")

    d, f, link, pipe = ((tmp_path / "layer" / name).lstat() for name in ("d", "d/f", "d/l", "d/p"))
    assert (stat.S_IMODE(d.st_mode), d.st_uid, d.st_gid, d.st_mtime) == (0o1777, 7, 8, 1000)
    assert (stat.S_IMODE(f.st_mode), f.st_uid, f.st_gid, f.st_mtime, f.st_nlink) == (0o4755, 1000, 100, 2000, 2)
    assert (link.st_uid, link.st_gid, link.st_mtime) == (5, 6, 3000)
    assert stat.S_ISFIFO(pipe.st_mode)
    assert (stat.S_IMODE(pipe.st_mode), pipe.st_uid) == (0o622, 9)


def test_file_capabilities_survive_the_change_of_owner(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep, struct vfs_cap_data
    header = b"57 SCHILY.xattr.security.capability=" + capability + b"\n"
    unpack(Tar().add("pax", b"x", data=header).add("ping", data=b"x", uid=1000), tmp_path / "layer")

    assert os.getxattr(tmp_path / "layer/ping", "security.capability") == capability


def test_whiteouts_become_overlays_marks(tmp_path: Path) -> None:
    tar = (
        Tar()
        .add(".wh.gone")
        .add("etc/.wh.passwd")
        .dir("cache")
        .add("cache/.wh..wh..opq")
        .add(".wh..wh.plnk", data=b"x")
    )

    unpack(tar, tmp_path / "layer")

    assert whiteout(tmp_path / "layer/gone")
    assert whiteout(tmp_path / "layer/etc/passwd")
    assert is_opaque(tmp_path / "layer/cache")
    assert sorted(os.listdir(tmp_path / "layer")) == ["cache", "etc", "gone"]


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_whiteout_hides_lower_layers_only(whiteout_first: bool, tmp_path: Path) -> None:
    tar = Tar().add(".wh.d") if whiteout_first else Tar()
    tar.dir("d").add("d/new", data=b"x")
    if not whiteout_first:
        tar.add(".wh.d").add("d/.wh.new")

    unpack(tar, tmp_path / "layer")

    assert (tmp_path / "layer/d/new").read_bytes() == b"x"
    assert os.getxattr(tmp_path / "layer/d", OPAQUE) == b"y"


def test_a_parent_the_layer_does_not_mention_looks_as_below(tmp_path: Path) -> None:
    unpack(Tar().dir("home", mode=0o711, uid=3).symlink("bin", "usr/bin").dir("usr/bin"), tmp_path / "lower")

    unpack(Tar().add("home/f").add("bin/tool"), tmp_path / "upper", tmp_path / "lower")

    home = (tmp_path / "upper/home").stat()
    assert (stat.S_IMODE(home.st_mode), home.st_uid) == (0o711, 3)
    assert (tmp_path / "upper/usr/bin/tool").exists()
    assert not (tmp_path / "upper/bin").exists()


def test_a_lower_link_that_was_whited_out_is_not_followed(tmp_path: Path) -> None:
    unpack(Tar().symlink("bin", "usr/bin"), tmp_path / "lowest")
    unpack(Tar().add(".wh.bin"), tmp_path / "middle", tmp_path / "lowest")

    unpack(Tar().add("bin/tool"), tmp_path / "upper", tmp_path / "middle", tmp_path / "lowest")

    assert (tmp_path / "upper/bin/tool").exists()


def test_the_later_entry_of_a_name_wins(tmp_path: Path) -> None:
    tar = Tar().dir("a").add("a/f", data=b"1").add("a", data=b"2").add("b", data=b"1").dir("b").add("b/f", data=b"2")

    unpack(tar, tmp_path / "layer")

    assert (tmp_path / "layer/a").read_bytes() == b"2"
    assert (tmp_path / "layer/b/f").read_bytes() == b"2"


@pytest.mark.parametrize("tar_format", ["gnu", "posix"])
def test_gnu_tars_sparse_files_keep_their_holes(tar_format: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for offset in range(0, 40 << 20, 1 << 20):  # more segments than a header holds
            file.seek(offset)
            file.write(b"data at %d" % offset)
        file.truncate(50 << 20)
    os.spawnlp(
        os.P_WAIT, "tar", "tar", "-C", source, "-S", f"--format={tar_format}", "-cf", tmp_path / "s.tar", "sparse"
    )
    (tmp_path / "layer").mkdir()

    with (tmp_path / "s.tar").open("rb") as file:
        unpack_layer(file, tmp_path / "layer")

    assert (tmp_path / "layer/sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (tmp_path / "layer/sparse").stat().st_blocks * 512 < 4 << 20


def test_names_that_are_told_beside_the_archive_hide_what_is_below(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "etc").mkdir(parents=True)
    (lower / "etc/group").touch()
    (tmp_path / "upper").mkdir()
    tar = Tar().add("etc/passwd", data=b"x").bytes()
    unpack_layer(io.BytesIO(tar), tmp_path / "upper", lowers=[lower], removed=["/etc/group", "/", "/etc/passwd"])
    assert is_whiteout((tmp_path / "upper/etc/group").lstat())
    assert (tmp_path / "upper/etc/passwd").read_bytes() == b"x"
    with pytest.raises(LayerError, match="leads outside"):
        unpack_layer(io.BytesIO(tar), tmp_path / "upper", removed=["../etc/shadow"])
