"""What this kernel can do: one probe each, by trying and never by version number; the only place that knows.

A probe runs when it is first asked for and is remembered. MINIKUBE_RAW_NO_<FEATURE>=1 in the environment forces an
answer off (MINIKUBE_RAW_NO_OPENAT2=1), so that the ways for older kernels are tested on newer ones.
"""

from __future__ import annotations

import ctypes
import errno
import os

from . import cgroup_mounts, mount_calls, pidfd_calls
from .syscalls import bind_syscall
from .user_namespaces import new_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_known: dict[str, bool] = {}
_probes: dict[str, Callable[[], bool]] = {}


def _feature(probe: Callable[[], bool]) -> Callable[[], bool]:
    """Makes a probe a question that is answered once per process."""
    name = probe.__name__

    def answer() -> bool:
        known = _known.get(name)
        if known is None:
            known = _known[name] = not os.environ.get(f"MINIKUBE_RAW_NO_{name.upper()}") and probe()
        return known

    answer.__name__ = answer.__qualname__ = name
    answer.__doc__ = probe.__doc__
    _probes[name] = answer
    return answer


def all() -> dict[str, bool]:
    """Returns the answer to every probe by name."""
    return {name: answer() for name, answer in _probes.items()}


def forget() -> None:
    """Forgets the answers, so that the next question probes (and reads the environment) again."""
    _known.clear()


@_feature
def new_mount_api() -> bool:
    """fsopen, fsconfig, fsmount, move_mount, open_tree (Linux ≥ 5.2)."""
    try:
        os.close(mount_calls.fsopen("tmpfs"))
    except OSError:
        return False
    return True


@_feature
def overlay() -> bool:
    """The kernel has overlayfs, built in or as a module that it can load (asking for it loads it)."""
    if new_mount_api():
        try:
            os.close(mount_calls.fsopen("overlay"))
        except OSError:
            return False
        return True
    with open("/proc/filesystems", encoding="ascii") as file:
        return "overlay" in file.read().split()


@_feature
def overlay_lowerdir_plus() -> bool:
    """Overlay takes its lower directories one by one through fsconfig(2) "lowerdir+" (Linux ≥ 6.7)."""
    return overlay() and _knows("overlay", lambda context: mount_calls.fsconfig_string(context, "lowerdir+", "/"))


@_feature
def overlay_detached_layers() -> bool:
    """Overlay takes layers from mounts that are attached nowhere (Linux ≥ 6.15); else they must be in the caller's namespace."""
    if not overlay_lowerdir_plus():
        return False
    opened: list[int] = []
    try:
        opened.append(_detached_tmpfs())
        opened.append(mount_calls.fsopen("overlay"))
        for name in ("a", "b"):
            os.mkdir(name, dir_fd=opened[0])
            mount_calls.fsconfig_string(opened[1], "lowerdir+", f"/proc/self/fd/{opened[0]}/{name}")
        mount_calls.fsconfig_create(opened[1])
    except OSError:
        return False
    finally:
        for fd in opened:
            os.close(fd)
    return True


def _detached_tmpfs() -> int:
    """Makes a tmpfs that is mounted nowhere; returns its root directory."""
    context = mount_calls.fsopen("tmpfs")
    try:
        mount_calls.fsconfig_create(context)
        return mount_calls.fsmount(context)
    finally:
        os.close(context)


@_feature
def mount_setattr() -> bool:
    """mount_setattr(2), which changes a whole tree of mounts at once (Linux ≥ 5.12)."""
    call = bind_syscall("mount_setattr", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_size_t)
    return _answers_otherwise_than_enosys(call, -1, b"", 0, None, 0)


@_feature
def openat2() -> bool:
    """openat2(2) with RESOLVE_IN_ROOT (Linux ≥ 5.6)."""
    call = bind_syscall("openat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
    return _answers_otherwise_than_enosys(call, -1, b"", None, 0)


@_feature
def clone3() -> bool:
    """clone3(2) (Linux ≥ 5.3; container engines' seccomp profiles answer ENOSYS)."""
    call = bind_syscall("clone3", ctypes.c_void_p, ctypes.c_size_t)
    return _answers_otherwise_than_enosys(call, None, 0)


@_feature
def close_range() -> bool:
    """close_range(2) (Linux ≥ 5.9)."""
    call = bind_syscall("close_range", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
    return _answers_otherwise_than_enosys(call, 1, 0, 0)  # last < first: EINVAL, and nothing is closed


def _answers_otherwise_than_enosys(call: Callable[..., int], *arguments: object) -> bool:
    """Calls with arguments that can only fail: one other than ENOSYS (or a filter's EPERM) shows that it exists."""
    return call(*arguments) >= 0 or ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM)


@_feature
def clone_into_cgroup() -> bool:
    """clone3(2) CLONE_INTO_CGROUP (Linux ≥ 5.7): kernels that know it look at the descriptor, here a bad one."""
    call = bind_syscall("clone3", ctypes.c_void_p, ctypes.c_size_t)
    arguments = (ctypes.c_uint64 * 11)(0x200000000, 0, 0, 0, 17)  # flags, …, exit_signal; the last is cgroup
    arguments[10] = 0x7FFFFFFE
    return call(ctypes.addressof(arguments), ctypes.sizeof(arguments)) < 0 and ctypes.get_errno() == errno.EBADF


@_feature
def pidfd_info_exit() -> bool:
    """ioctl(pidfd, PIDFD_GET_INFO) tells how a reaped process ended, to others than its parent too (Linux ≥ 6.15)."""
    try:
        child = os.posix_spawn("/bin/true", ["true"], {})  # no fork: whoever asks may have threads
    except OSError:
        return False
    pidfd = os.pidfd_open(child)
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        return pidfd_calls.pidfd_exit_status(pidfd) is not None
    finally:
        os.close(pidfd)


@_feature
def cgroup_kill() -> bool:
    """cgroup.kill in the unified hierarchy (Linux ≥ 5.14); the root has no such file, so a cgroup is made to look."""
    unified = cgroup_mounts.hierarchies().unified
    if unified is None:
        return False
    # Not the pid: processes in PID namespaces of several nodes share the hierarchy and may share the number.
    probe = f"{unified}/minikube-raw-probe-{os.urandom(8).hex()}"
    try:
        os.mkdir(probe)
    except OSError:
        return False
    try:
        return os.path.exists(f"{probe}/cgroup.kill")
    finally:
        os.rmdir(probe)


@_feature
def psi() -> bool:
    """Pressure stall information (Linux ≥ 4.20, unless booted with psi=0)."""
    try:
        with open("/proc/pressure/memory", "rb") as file:
            return bool(file.read(4))
    except OSError:
        return False


@_feature
def idmapped_mounts() -> bool:
    """Mounts with other owners, of tmpfs too (Linux ≥ 6.3), tried on one and on the file system of the temporary directory."""
    if not mount_setattr():
        return False
    opened: list[int] = []
    try:
        opened.append(new_user_namespace(100_000))
        opened.append(mount_calls.open_tree(os.environ.get("TMPDIR", "/tmp"), recursive=False))
        opened.append(_detached_tmpfs())
        for tree in opened[1:]:
            mount_calls.mount_setattr("", dirfd=tree, set=mount_calls.MOUNT_ATTR_IDMAP, userns_fd=opened[0])
    except OSError:
        return False
    finally:
        for fd in opened:
            os.close(fd)
    return True


@_feature
def tmpfs_noswap() -> bool:
    """A tmpfs whose pages are never written to swap (Linux ≥ 6.4)."""
    return _knows("tmpfs", lambda context: mount_calls.fsconfig_flag(context, "noswap"))


def _knows(filesystem: str, configure: Callable[[int], None]) -> bool:
    """Tries an option. A file system that still has mount(2)'s way (overlay before Linux 6.5) takes any until it is created."""
    if not new_mount_api():
        return False
    context = mount_calls.fsopen(filesystem)
    try:
        if _takes(context, lambda context: mount_calls.fsconfig_flag(context, "nosuchoption")):
            return False
        return _takes(context, configure)
    finally:
        os.close(context)


def _takes(context: int, configure: Callable[[int], None]) -> bool:
    try:
        configure(context)
    except OSError:
        return False
    return True
