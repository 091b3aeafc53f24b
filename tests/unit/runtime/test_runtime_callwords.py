"""Recorded arguments in words."""

from __future__ import annotations

import pytest

from minikube_raw.linux import mount_calls, namespaces
from minikube_raw.runtime import callwords
from minikube_raw.runtime.callwords import words


@pytest.mark.parametrize(
    ("call", "arguments", "shown"),
    [
        ("mount", ("tmpfs", "/dev", "tmpfs", 1 << 24 | 2, "mode=755"), "tmpfs, /dev, tmpfs, MS_NOSUID|MS_STRICTATIME, mode=755"),
        ("mount", ("/a", "/b", "", 0x5000, ""), "/a, /b, , MS_BIND|MS_REC"),
        ("umount2", (".", 2), "., MNT_DETACH"),
        ("unshare", (0x6000000,), "CLONE_NEWCGROUP|CLONE_NEWUTS"),
        ("clone", (0x20000000, 17), "CLONE_NEWPID, 17"),
        ("setns", (17, 0), "17"),
        ("fsconfig", (5, 1, "lowerdir+", "/l"), "5, FSCONFIG_SET_STRING, lowerdir+, /l"),
        ("open_tree", (-100, "/v", 1), "AT_FDCWD, /v, OPEN_TREE_CLONE"),
        ("mount_setattr", (9, "", 0x1000, 1, 0, 1 << 18, 0), '9, "", AT_EMPTY_PATH, set=MOUNT_ATTR_RDONLY, propagation=MS_PRIVATE'),
        ("capset", (0xFF, 0xFF, 0), "effective=0xff, permitted=0xff"),
        ("mkdir", (7, "etc"), "7, etc"),
        ("unshare", (1,), "0x1"),
        ("netlink", "link add eth0", "link add eth0"),
    ],
)  # fmt: skip
def test_arguments_are_shown_as_strace_shows_them(call: str, arguments: tuple[object, ...] | str, shown: str) -> None:
    assert words(call, arguments) == shown


@pytest.mark.parametrize(
    ("flags", "module", "prefix"),
    [
        (callwords.MOUNT, mount_calls, "MS_"),
        (callwords.UMOUNT, mount_calls, "MNT_"),
        (callwords.CLONE, namespaces, "CLONE_"),
        (callwords.AT, mount_calls, "AT_"),
        (callwords.ATTRIBUTES, mount_calls, "MOUNT_ATTR_"),
        (callwords.MOVE_MOUNT, mount_calls, "MOVE_MOUNT_"),
    ],
)
def test_every_flag_that_linux_uses_has_a_name(flags: dict[int, str], module: object, prefix: str) -> None:
    used = {name: value for name, value in vars(module).items() if name.startswith(prefix) and name != "AT_FDCWD"}
    assert {name: value for value, name in flags.items() if name in used} == used
