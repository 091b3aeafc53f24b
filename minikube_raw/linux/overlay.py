"""Overlay mounts of a container's layers, through lowerdir+ where the kernel has it and mount(2) where not.

One hundred layers must fit either way. mount(2) takes its options in one page of 4,096 bytes, so there layers are named
by descriptor, with /proc/self/fd as working directory ("7:8:9"): short, and free of characters that would need escapes.
"""

from __future__ import annotations

import os

from . import features
from .mount_calls import fsconfig_create, fsconfig_flag, fsconfig_string, fsmount, fsopen, mount, move_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_VALUE = 255  # fsconfig(2) answers EINVAL to a longer string
_SPECIAL = frozenset("\\:,")  # overlayfs un-escapes and splits at these
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def overlay(
    target: str, lowers: Sequence[str], upper: str | None = None, work: str | None = None, *, volatile: bool = True
) -> None:
    """Mounts an overlay at `target`; `lowers` are directories, the uppermost layer first, as overlayfs names them.

    Without `upper` and `work` the mount is read-only. `volatile` skips every sync: right for an upper directory that
    dies with its container, wrong for one that is kept (it cannot be mounted a second time). Raises OSError.
    """
    if not features.overlay_lowerdir_plus():
        _mount_from_descriptors(target, lowers, upper, work, volatile=volatile)
        return
    mount_fd = open_overlay(lowers, upper, work, volatile=volatile)
    try:
        move_mount(mount_fd, target)
    finally:
        os.close(mount_fd)


def open_overlay(
    lowers: Sequence[str], upper: str | None = None, work: str | None = None, *, volatile: bool = True
) -> int:
    """Makes the overlay as a detached mount, for move_mount(); needs features.overlay_lowerdir_plus()."""
    opened: list[int] = []
    context = fsopen("overlay")
    try:
        fsconfig_string(context, "source", "overlay")
        for lower in lowers:
            fsconfig_string(context, "lowerdir+", _value(lower, opened))
        if upper is not None and work is not None:
            fsconfig_string(context, "upperdir", _value(upper, opened))
            fsconfig_string(context, "workdir", _value(work, opened))
            # An index would serve NFS export, which we never do, and refuse an upper directory whose layers were moved.
            fsconfig_string(context, "index", "off")
            if volatile:
                fsconfig_flag(context, "volatile")
        fsconfig_create(context)
        return fsmount(context)
    finally:
        _close_all([context, *opened])


def forget_volatile(work: str) -> None:
    """Lets a volatile overlay be mounted again, which the kernel refuses: what its files became in between nobody knows.

    For one that nobody has written to yet. A call that is interrupted is finished by the next one.
    """
    mark = f"{work}/work/incompat/volatile"
    for path, remove in ((f"{mark}/dirty", os.unlink), (mark, os.rmdir)):
        try:
            remove(path)
        except FileNotFoundError:
            pass


def _value(path: str, opened: list[int]) -> str:
    """Returns the path as fsconfig takes it: itself, or a descriptor's name if it is long or has special characters."""
    if len(os.fsencode(path)) <= _LONGEST_VALUE and _SPECIAL.isdisjoint(path):
        return path
    opened.append(os.open(path, _DIRECTORY))
    return f"/proc/self/fd/{opened[-1]}"


def _mount_from_descriptors(
    target: str, lowers: Sequence[str], upper: str | None, work: str | None, *, volatile: bool
) -> None:
    """mount(2) with short names; the working directory, which is the process's, is put back afterwards."""
    opened = [os.open(".", _DIRECTORY)]
    try:
        target = os.path.abspath(target)
        for path in (*lowers, upper, work):
            if path is not None:
                opened.append(os.open(path, _DIRECTORY))
        names = [str(descriptor) for descriptor in opened[1:]]
        options = [f"lowerdir={':'.join(names[: len(lowers)])}"]
        if upper is not None and work is not None:
            options += [f"upperdir={names[-2]}", f"workdir={names[-1]}", "index=off"]
            options += ["volatile"] if volatile else []
        os.chdir("/proc/self/fd")
        mount("overlay", target, "overlay", 0, ",".join(options))
    finally:
        os.fchdir(opened[0])
        _close_all(opened)


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
