"""Mounts for real: overlays of many layers, read-only trees, and a root that leaves nothing of the old one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from minikube_raw.linux import features, mounts, overlay, steps

pytestmark = pytest.mark.root
InChild = Callable[..., None]


@pytest.fixture
def layers(tmp_path: Path) -> list[str]:
    """A hundred layers with names as long as digests, uppermost first; each has its own file and its say on /who."""
    paths = []
    for number in range(100):
        layer = tmp_path / "layers" / f"{number:064x}" / "diff"
        layer.mkdir(parents=True)
        (layer / f"only-{number}").touch()
        (layer / "who").write_text(str(number))
        paths.append(str(layer))
    return paths


def directories(parent: Path, *names: str) -> list[str]:
    for name in names:
        (parent / name).mkdir()
    return [str(parent / name) for name in names]


def test_an_overlay_of_a_hundred_layers_shows_them_all_and_the_uppermost_wins(
    in_child: InChild, layers: list[str], tmp_path: Path
) -> None:
    upper, work, target = directories(tmp_path, "upper", "work", "target")

    def check() -> None:
        mounts.overlay(target, layers, upper, work)
        assert {f"only-{number}" for number in range(100)} < set(os.listdir(target))
        assert Path(target, "who").read_text() == "0"
        Path(target, "who").write_text("container")
        assert Path(upper, "who").read_text() == "container"
        assert Path(layers[0], "who").read_text() == "0"

    in_child(check)


def test_an_overlay_without_upper_directory_is_read_only(in_child: InChild, layers: list[str], tmp_path: Path) -> None:
    (target,) = directories(tmp_path, "target")

    def check() -> None:
        mounts.overlay(target, layers[:2])
        with pytest.raises(OSError) as refused:
            Path(target, "new").touch()
        assert refused.value.errno == errno.EROFS

    in_child(check)


@pytest.mark.parametrize(
    "name", ["co:lon", "com,ma", "back\\slash", "a blank", "lowerdir=x", "n" * 250], ids=lambda name: name[:12]
)
def test_a_directory_of_any_name_can_be_a_layer(in_child: InChild, tmp_path: Path, name: str) -> None:
    lower, lower2, upper, work, target = directories(
        tmp_path, name, name[:-1] + "2", f"u{name[1:]}", f"w{name[1:]}", "t"
    )
    Path(lower, "file").touch()

    def check() -> None:
        mounts.overlay(target, [lower, lower2], upper, work)
        assert os.listdir(target) == ["file"]

    in_child(check)


def test_mounting_an_overlay_leaves_working_directory_and_descriptors_as_they_were(
    in_child: InChild, layers: list[str], tmp_path: Path
) -> None:
    upper, work, _ = directories(tmp_path, "upper", "work", "target")

    def check() -> None:
        os.chdir(tmp_path)
        before = os.listdir("/proc/self/fd")
        mounts.overlay("target", layers, upper, work)
        assert os.listdir("target")
        with pytest.raises(OSError):
            mounts.overlay("target", ["/missing"], upper, work)
        assert os.getcwd() == str(tmp_path)
        assert os.listdir("/proc/self/fd") == before

    in_child(check)


def test_a_volatile_upper_directory_is_refused_a_second_time(in_child: InChild, tmp_path: Path) -> None:
    lower, upper, work, target = directories(tmp_path, "lower", "upper", "work", "target")

    def check() -> None:
        mounts.overlay(target, [lower], upper, work)
        mounts.umount(target)
        with pytest.raises(OSError) as refused:
            mounts.overlay(target, [lower], upper, work)
        assert refused.value.errno == errno.EINVAL
        shutil.rmtree(work)
        os.mkdir(work)
        mounts.overlay(target, [lower], upper, work, volatile=False)

    in_child(check)


@pytest.mark.parametrize("interrupted", [False, True], ids=["at once", "after an interrupted call"])
def test_a_volatile_upper_directory_that_is_forgotten_is_mounted_again(
    in_child: InChild, tmp_path: Path, interrupted: bool
) -> None:
    lower, upper, work, target = directories(tmp_path, "lower", "upper", "work", "target")

    def check() -> None:
        overlay.forget_volatile(work)  # of a first mount there is nothing to forget
        mounts.overlay(target, [lower], upper, work)
        mounts.umount(target)
        if interrupted:
            os.unlink(f"{work}/work/incompat/volatile/dirty")
            with pytest.raises(OSError):
                mounts.overlay(target, [lower], upper, work)
        overlay.forget_volatile(work)
        mounts.overlay(target, [lower], upper, work)

    in_child(check)


def test_a_read_only_bind_covers_the_mounts_below_and_keeps_their_flags(in_child: InChild, tmp_path: Path) -> None:
    source, target = directories(tmp_path, "source", "target")
    os.mkdir(f"{source}/be low")

    def check() -> None:
        mounts.tmpfs(f"{source}/be low", flags=mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC)
        mounts.bind(source, target, readonly=True)
        for path in (target, f"{target}/be low"):
            with pytest.raises(OSError) as refused:
                Path(path, "new").touch()
            assert refused.value.errno == errno.EROFS
        assert os.statvfs(f"{target}/be low").f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC) == 14
        Path(source, "be low", "new").touch()  # the source itself stays writable

    in_child(check)


def test_a_bind_that_is_not_recursive_leaves_out_what_is_mounted_below(in_child: InChild, tmp_path: Path) -> None:
    source, target = directories(tmp_path, "source", "target")
    os.mkdir(f"{source}/below")

    def check() -> None:
        mounts.tmpfs(f"{source}/below")
        Path(source, "below", "file").touch()
        mounts.bind(source, target, recursive=False)
        assert os.listdir(f"{target}/below") == []

    in_child(check)


def test_switching_the_root_leaves_nothing_of_the_old_one(in_child: InChild, tmp_path: Path) -> None:
    (root,) = directories(tmp_path, "root")

    def check() -> None:
        mounts.tmpfs(root)
        os.mkdir(f"{root}/proc")
        mounts.proc(f"{root}/proc")
        mounts.switch_root(root)
        assert os.listdir("/") == ["proc"]
        assert os.getcwd() == "/"
        mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        assert mounted == ["/", "/proc"]
        os.chdir("../../..")
        assert os.listdir(".") == ["proc"]

    in_child(check)


def test_stacked_mounts_are_all_taken_away_and_a_second_call_is_fine(in_child: InChild, tmp_path: Path) -> None:
    (target,) = directories(tmp_path, "target")

    def check() -> None:
        for _ in range(3):
            mounts.tmpfs(target)
        os.mkdir(f"{target}/below")
        mounts.tmpfs(f"{target}/below")
        mounts.umount_all(target)
        assert os.listdir(target) == []
        assert target not in Path("/proc/self/mountinfo").read_text()
        mounts.umount_all(target)
        mounts.umount_all(f"{target}/missing")

    in_child(check)


def test_a_tmpfs_has_the_mode_and_size_asked_for_whatever_the_umask(in_child: InChild, tmp_path: Path) -> None:
    (target,) = directories(tmp_path, "target")

    def check() -> None:
        os.umask(0o077)
        mounts.tmpfs(target, mode=0o1777, size="64k")
        assert os.stat(target).st_mode & 0o7777 == 0o1777
        with pytest.raises(OSError) as full:
            Path(target, "big").write_bytes(bytes(70_000))
        assert full.value.errno == errno.ENOSPC

    in_child(check)


def test_each_devpts_has_terminals_of_its_own(in_child: InChild, tmp_path: Path) -> None:
    first, second = directories(tmp_path, "first", "second")

    def check() -> None:
        mounts.devpts(first)
        mounts.devpts(second)
        held = os.open(f"{first}/ptmx", os.O_RDWR | os.O_NOCTTY)
        assert sorted(os.listdir(first)) == ["0", "ptmx"]
        assert os.listdir(second) == ["ptmx"]
        assert os.stat(f"{first}/0").st_gid == 5
        os.close(held)

    in_child(check)


def test_a_failed_mount_names_call_and_target_and_is_recorded() -> None:
    steps.start_recording()
    with pytest.raises(FileNotFoundError, match="mount: No such file") as failed:
        mounts.tmpfs("/missing/target")
    recorded = steps.stop_recording()
    assert failed.value.filename == "/missing/target"
    assert [(what, subject) for _, _, what, subject in recorded] == [
        ("mount", ("tmpfs", "/missing/target", "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=755"))
    ]


@pytest.mark.usefixtures("kernel_features")
def test_a_detached_overlay_needs_no_place_in_any_mount_namespace(layers: list[str], tmp_path: Path) -> None:
    if not features.overlay_lowerdir_plus():
        pytest.skip("detached overlays need lowerdir+")
    upper, work = directories(tmp_path, "upper", "work")
    before = Path("/proc/self/mountinfo").read_text()
    detached = mounts.open_overlay(layers, upper, work)
    try:
        inside = os.open("who", os.O_RDONLY, dir_fd=detached)
        assert os.read(inside, 9) == b"0"
        os.close(inside)
        assert Path("/proc/self/mountinfo").read_text() == before
    finally:
        os.close(detached)
