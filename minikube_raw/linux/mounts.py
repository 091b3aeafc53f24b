"""The mounts that containers and nodes are made of: bind, overlay, tmpfs, proc, sysfs, devpts, mqueue, root switch.

Verbs over mount_calls.py, which holds the bare system calls and the kernel's constants (both are importable from here).
Nothing here decides what a container gets; that list is the runtime's.
"""

from __future__ import annotations

import os

from . import features
from .mount_calls import (
    AT_FDCWD,
    MNT_DETACH,
    MNT_FORCE,
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_MOVE,
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
    UMOUNT_NOFOLLOW,
    fsconfig_create,
    fsmount,
    fsopen,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    pivot_root,
    umount,
)
from .overlay import open_overlay, overlay
from .paths import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    make_directories_in_root,
    open_beneath,
    open_in_root,
    openat2,
)

__all__ = [
    "AT_FDCWD",
    "MNT_DETACH",
    "MNT_FORCE",
    "MOUNT_ATTR_IDMAP",
    "MOUNT_ATTR_NODEV",
    "MOUNT_ATTR_NOEXEC",
    "MOUNT_ATTR_NOSUID",
    "MOUNT_ATTR_RDONLY",
    "MS_BIND",
    "MS_MOVE",
    "MS_NOATIME",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_RELATIME",
    "MS_REMOUNT",
    "MS_SHARED",
    "MS_SLAVE",
    "MS_UNBINDABLE",
    "RESOLVE_BENEATH",
    "RESOLVE_IN_ROOT",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_SYMLINKS",
    "RESOLVE_NO_XDEV",
    "UMOUNT_NOFOLLOW",
    "bind",
    "cgroup2",
    "devpts",
    "make_directories_in_root",
    "make_readonly",
    "mount",
    "mount_points_below",
    "mount_setattr",
    "move_mount",
    "mqueue",
    "open_beneath",
    "open_filesystem",
    "open_in_root",
    "open_overlay",
    "open_tree",
    "openat2",
    "overlay",
    "pivot_root",
    "proc",
    "set_propagation",
    "switch_root",
    "sysfs",
    "tmpfs",
    "umount",
    "umount_all",
]

_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC
# statvfs(3) flags that a bind remount must repeat: it clears what is not named, and in a user namespace that is EPERM.
_KEPT_FLAGS = (
    (os.ST_NOSUID, MS_NOSUID),
    (os.ST_NODEV, MS_NODEV),
    (os.ST_NOEXEC, MS_NOEXEC),
    (os.ST_NOATIME, MS_NOATIME),
    (os.ST_RELATIME, MS_RELATIME),
)


def bind(source: str, target: str, *, readonly: bool = False, recursive: bool = True) -> None:
    """Bind-mounts `source` on `target`, with the mounts below it if `recursive`; `readonly` then covers those too."""
    mount(source, target, "", MS_BIND | (MS_REC if recursive else 0))
    if readonly:
        make_readonly(target, recursive=recursive)


def make_readonly(target: str, *, recursive: bool = True) -> None:
    """Makes the mount at `target`, and with `recursive` every mount below, read-only for those who see it there."""
    if features.mount_setattr():
        mount_setattr(target, set=MOUNT_ATTR_RDONLY, recursive=recursive)
        return
    for point in mount_points_below(target) if recursive else [target]:
        flags = os.statvfs(point).f_flag
        kept = sum(mount_flag for stat_flag, mount_flag in _KEPT_FLAGS if flags & stat_flag)
        mount("", point, "", MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def mount_points_below(path: str) -> list[str]:
    """Returns `path`, then each mount point below it in this mount namespace, parents first."""
    top = os.path.realpath(path)
    prefix = top.rstrip("/") + "/"
    with open("/proc/thread-self/mountinfo", "rb") as mountinfo:
        points = [unescape(line.split(b" ", 5)[4]) for line in mountinfo]
    return [top, *sorted({point for point in points if point.startswith(prefix)})]


def device_of(path: str) -> str:
    """What the file system that holds `path` is mounted from, as mountinfo names it ("/dev/vda", "tmpfs")."""
    number = os.stat(path).st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}".encode()
    with open("/proc/thread-self/mountinfo", "rb") as mountinfo:
        for line in mountinfo:
            before, _, after = line.partition(b" - ")
            if before.split(b" ", 3)[2] == wanted:
                return unescape(after.split(b" ")[1])
    return ""


def unescape(field: bytes) -> str:
    """Undoes the octal escapes of mountinfo (proc_pid_mountinfo(5)): blank, tab, new line, backslash."""
    for octal, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(octal, character)
    return os.fsdecode(field)


def umount_all(target: str) -> None:
    """Detaches the mount at `target` with all below it, and those stacked under it; nothing mounted there is fine."""
    while True:
        try:
            umount(target, MNT_DETACH | UMOUNT_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if error.errno == 22:  # EINVAL: not a mount point, or no longer
                return
            raise


def tmpfs(
    target: str, *, mode: int = 0o755, size: str = "", flags: int = MS_NOSUID | MS_NODEV, options: str = ""
) -> None:
    """Mounts a tmpfs; `size` as tmpfs(5) reads it ("64m", "50%"), empty for half of the memory.

    The mode is always given: the kernel's default is 1777, and opening /dev/null in a world-writable sticky /dev fails
    for others under fs.protected_regular.
    """
    given = [f"mode={mode:o}", f"size={size}" if size else "", options]
    mount("tmpfs", target, "tmpfs", flags, ",".join(filter(None, given)))


def open_filesystem(fstype: str, attributes: int = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC) -> int:
    """Makes a mount of a file system without a device (proc, sysfs, tmpfs) as a detached one, for move_mount()."""
    context = fsopen(fstype)
    try:
        fsconfig_create(context)
        return fsmount(context, attributes)
    finally:
        os.close(context)


def proc(target: str) -> None:
    """Mounts the calling process's PID namespace as procfs."""
    mount("proc", target, "proc", _SAFE)


def sysfs(target: str, *, readonly: bool = True) -> None:
    """Mounts sysfs of the calling process's network namespace."""
    mount("sysfs", target, "sysfs", _SAFE | (MS_RDONLY if readonly else 0))


def mqueue(target: str) -> None:
    """Mounts the POSIX message queues of the calling process's IPC namespace."""
    mount("mqueue", target, "mqueue", _SAFE)


def devpts(target: str, *, gid: int | None = 5) -> None:
    """Mounts a devpts instance of its own; `gid` is tty's, None in a user namespace that does not map it."""
    group = "" if gid is None else f",gid={gid}"
    mount("devpts", target, "devpts", MS_NOSUID | MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620{group}")


def cgroup2(target: str, *, readonly: bool = True) -> None:
    """Mounts the unified hierarchy, rooted at the calling process's cgroup namespace."""
    mount("cgroup", target, "cgroup2", _SAFE | MS_RELATIME | (MS_RDONLY if readonly else 0))


def set_propagation(target: str, propagation: int) -> None:
    """Sets the propagation of a mount, e.g. MS_PRIVATE | MS_REC; see mount_namespaces(7)."""
    mount("", target, "", propagation)


def switch_root(new_root: str) -> None:
    """Makes the mount point `new_root` the root of this mount namespace and leaves nothing of the old one reachable.

    The new root is stacked on the old one ("." twice), so no directory for the old root is needed; the old root is made
    a slave before it is detached, so that the umount is not propagated to the host.
    """
    old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(new_root)
        pivot_root(".", ".")
        os.fchdir(old_root)
        set_propagation(".", MS_SLAVE | MS_REC)
        umount(".", MNT_DETACH)
        os.chdir("/")
    finally:
        os.close(old_root)
