"""What a process sets about itself: prctl(2), priority, ids, session keyring, host name, the loopback of its namespace.

One thin function each.
"""

from __future__ import annotations

# The C core of the socket module: the module itself imports enum and selectors, 6 ms.
import _socket
import fcntl
import os
import struct
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_ulong

from . import steps
from .syscalls import bind, bind_syscall, checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
KEYCTL_JOIN_SESSION_KEYRING = 1
KEYCTL_SETPERM = 5
# What runc gives a container's keyring: its possessor everything, others of its user to view, read, search and link it.
SESSION_KEYRING_PERMISSIONS = 0x3F1B0000

_FIRST = -10  # a nice value: ten times the weight of 0 (sched(7))
_priority_before: int | None = None  # go_first()

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_prctl = bind("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_prctl_name = bind("prctl", c_int, c_char_p, c_ulong, c_ulong, c_ulong)
_keyctl = bind_syscall("keyctl", c_int, c_char_p)
_keyctl_setperm = bind_syscall("keyctl", c_int, c_int, c_uint)
_sethostname = bind("sethostname", c_char_p, c_size_t)


def set_name(name: str) -> None:
    """Sets the thread's name as ps shows it; the kernel keeps 15 bytes."""
    checked("prctl", f"PR_SET_NAME {name}", _prctl_name, PR_SET_NAME, os.fsencode(name), 0, 0, 0)


def go_first() -> None:
    """Gives the calling thread ten times the CPU of any other in its cgroup, where both want it; what it starts inherits that.

    A host that withholds CAP_SYS_NICE leaves it as it is.
    """
    global _priority_before
    before = os.getpriority(os.PRIO_PROCESS, 0)
    if before <= _FIRST:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _FIRST)
    except PermissionError:
        return
    _priority_before = before


def go_with_others() -> None:
    """Undoes go_first() for the calling thread, or for the process when it is a child of the one that went first.

    That takes no capability.
    """
    if _priority_before is not None:
        os.setpriority(os.PRIO_PROCESS, 0, _priority_before)


def set_dumpable(dumpable: bool) -> None:
    """PR_SET_DUMPABLE: without it nobody in a container that we join can attach to us or read our /proc/PID."""
    checked("prctl", f"PR_SET_DUMPABLE {dumpable:d}", _prctl, PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def set_no_new_privileges() -> None:
    """PR_SET_NO_NEW_PRIVS: setuid bits and file capabilities do nothing from now on, in children too."""
    checked("prctl", "PR_SET_NO_NEW_PRIVS", _prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_keep_capabilities(keep: bool) -> None:
    """PR_SET_KEEPCAPS: permitted capabilities survive the change from root to another user, until exec."""
    checked("prctl", f"PR_SET_KEEPCAPS {keep:d}", _prctl, PR_SET_KEEPCAPS, int(keep), 0, 0, 0)


def become_subreaper(wanted: bool = True) -> None:
    """PR_SET_CHILD_SUBREAPER: orphaned descendants become our children, from now on or no longer."""
    checked("prctl", f"PR_SET_CHILD_SUBREAPER {wanted:d}", _prctl, PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def children() -> list[int]:
    """Returns the processes that are our (main thread's) children; none without CONFIG_PROC_CHILDREN."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(number) for number in file.read().split()]
    except FileNotFoundError:
        return []


def set_parent_death_signal(signal: int) -> None:
    """PR_SET_PDEATHSIG: the signal comes when the thread that forked us ends; 0 for none. Lost on a change of user."""
    checked("prctl", f"PR_SET_PDEATHSIG {signal}", _prctl, PR_SET_PDEATHSIG, signal, 0, 0, 0)


def join_new_session_keyring(name: str | None = None) -> bool:
    """Leaves the inherited session keyring for a new one; False if that is refused.

    One with a name is the same for all that join it, and may be searched by other processes of its user.
    """
    encoded = None if name is None else os.fsencode(name)
    try:
        ring = checked("keyctl", f"JOIN_SESSION_KEYRING {name}", _keyctl, KEYCTL_JOIN_SESSION_KEYRING, encoded)
        if name is not None:
            permissions = SESSION_KEYRING_PERMISSIONS
            checked("keyctl", f"SETPERM {ring} {permissions:x}", _keyctl_setperm, KEYCTL_SETPERM, ring, permissions)
    except OSError:
        return False  # EDQUOT, ENOSYS or a filter's EPERM: the old keyring is kept, as runc does with --no-new-keyring
    return True


def set_groups(groups: Sequence[int]) -> None:
    """setgroups(2): the supplementary groups, for this thread's process as a whole."""
    began = steps.begin()
    os.setgroups(groups)
    steps.end(began, "setgroups", tuple(groups))


def set_ids(uid: int, gid: int) -> None:
    """setresgid(2), then setresuid(2): real, effective and saved ids at once."""
    began = steps.begin()
    os.setresgid(gid, gid, gid)
    steps.end(began, "setresgid", (gid, gid, gid))
    began = steps.begin()
    os.setresuid(uid, uid, uid)
    steps.end(began, "setresuid", (uid, uid, uid))


def set_hostname(name: str) -> None:
    """sethostname(2); the kernel takes 64 bytes."""
    encoded = os.fsencode(name)
    checked("sethostname", name, _sethostname, encoded, len(encoded))


def set_link_up(name: str = "lo") -> None:
    """Brings a network device of the thread's namespace up by ioctl (netdevice(7)), which needs no netlink library."""
    began = steps.begin()
    channel = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
    try:
        answer = fcntl.ioctl(channel.fileno(), _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
        (flags,) = struct.unpack_from("H", answer, 16)
        fcntl.ioctl(channel.fileno(), _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))
    finally:
        channel.close()
        steps.end(began, "ioctl", f"SIOCSIFFLAGS {name} up")


def set_oom_score_adj(value: int, pid: int | None = None) -> bool:
    """Writes oom_score_adj; False when lowering it is refused (it needs CAP_SYS_RESOURCE): the old value stands."""
    path = f"/proc/{'self' if pid is None else pid}/oom_score_adj"
    began = steps.begin()
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, str(value).encode())
    except PermissionError:
        return False
    finally:
        os.close(file)
        steps.end(began, "write", f"{path}={value}")
    return True
