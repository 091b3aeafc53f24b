"""A write to procfs goes to the file that is meant, however /proc was arranged (CVE-2025-52881)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minikube_raw.linux import features, mounts, procfs

pytestmark = pytest.mark.root
NAME = "sys/kernel/domainname"


def refused(*codes: int) -> None:
    with pytest.raises(OSError) as it:
        procfs.open_file(NAME, os.O_WRONLY)
    assert it.value.errno in codes


def test_the_file_itself_is_opened(in_child: Callable[..., None]) -> None:
    def work() -> None:
        file = procfs.open_file(NAME, os.O_RDONLY)
        assert os.read(file, 100).decode() == Path("/proc", NAME).read_text()
        assert not os.get_inheritable(file)

    in_child(work)


def fake(directory: Path) -> Path:
    (directory / NAME).parent.mkdir(parents=True)
    (directory / NAME).write_text("untouched")
    return directory


def test_another_file_system_over_proc_is_refused(in_child: Callable[..., None], tmp_path: Path) -> None:
    fake(tmp_path)

    def work() -> None:
        mounts.bind(str(tmp_path), "/proc")
        refused(errno.ENODEV)

    in_child(work)


def test_a_part_of_procfs_over_proc_is_refused(in_child: Callable[..., None]) -> None:
    def work() -> None:
        mounts.bind("/proc/sys", "/proc")
        with pytest.raises(OSError) as it:
            procfs.open_file("kernel/domainname", os.O_WRONLY)
        assert it.value.errno == errno.ENODEV

    in_child(work)


@pytest.mark.parametrize("place", [NAME, "sys/kernel", "sys"])
def test_a_mount_of_another_file_system_in_proc_is_refused(
    in_child: Callable[..., None], tmp_path: Path, place: str
) -> None:
    fake(tmp_path)

    def work() -> None:
        mounts.bind(str(tmp_path / place), f"/proc/{place}")
        refused(errno.EXDEV)

    in_child(work)


def test_another_file_of_procfs_over_the_one_that_is_meant_is_refused(in_child: Callable[..., None]) -> None:
    def work() -> None:
        if features.openat2():  # kernels before 5.6 cannot tell mounts of one file system apart
            mounts.bind("/proc/sys/kernel/core_pattern", f"/proc/{NAME}")
            refused(errno.EXDEV)

    in_child(work)


@pytest.mark.parametrize("path", ["self/comm", "thread-self/attr/exec", "PID/root/etc/passwd", "PID/fd/0"])
def test_links_of_procfs_are_not_followed(in_child: Callable[..., None], path: str) -> None:
    def work() -> None:
        with pytest.raises(OSError) as it:
            procfs.open_file(path.replace("PID", str(os.getpid())), os.O_RDONLY)
        assert it.value.errno == errno.ELOOP

    in_child(work)
