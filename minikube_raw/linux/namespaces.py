"""Namespaces: making, joining and pinning them, and a fork that makes them and joins a cgroup in the same system call.

Namespaces belong to a thread. Processes with threads join one only through in_namespace(), in a thread that ends;
clone_child() is for processes of a single thread (launcher, keeper, container init).
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import os
from ctypes import c_int, c_long, c_size_t, c_void_p

from . import features, steps
from .mount_calls import MNT_DETACH, MS_BIND, UMOUNT_NOFOLLOW, mount, umount
from .syscalls import MACHINE, bind, bind_syscall, checked, libc_holding_gil, raise_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Result = TypeVar("Result")

CLONE_FS = 0x200
CLONE_PIDFD = 0x1000
CLONE_NEWTIME = 0x80
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_CHILD_CLEARTID = 0x200000
CLONE_CHILD_SETTID = 0x1000000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# By the names of /proc/PID/ns; "pid_for_children" is what unshare(CLONE_NEWPID) makes.
KINDS: dict[str, int] = {
    "user": CLONE_NEWUSER,
    "mnt": CLONE_NEWNS,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "net": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "pid_for_children": CLONE_NEWPID,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}

SIGCHLD = 17
PR_GET_TID_ADDRESS = 40


_CLONE_ARGS = "flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup"


class clone_args(ctypes.Structure):
    """struct clone_args of clone3(2), version 2 (with cgroup)."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in _CLONE_ARGS.split())


_unshare = bind("unshare", c_int)
_setns = bind("setns", c_int, c_int)
_prctl_address = bind("prctl", c_int, c_void_p, c_long, c_long, c_long)
# Both return in the child too, on a copy of this stack; the lock of the interpreter must be held across them.
_clone3 = bind_syscall("clone3", c_void_p, c_size_t, library=libc_holding_gil)
_clone = bind_syscall("clone", c_long, c_void_p, c_void_p, c_void_p, c_void_p, library=libc_holding_gil)

# What os.fork() does around fork(2): the import lock, os.register_at_fork() hooks, the interpreter's thread state.
_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_in_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_in_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _hook in (_before_fork, _after_fork_in_parent, _after_fork_in_child):
    _hook.argtypes = ()
    _hook.restype = None


def unshare(flags: int) -> None:
    """unshare(2): moves the calling thread into new namespaces (the next children for PID and time)."""
    checked("unshare", hex(flags), _unshare, flags, step=(flags,))


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2): joins the namespace, or with a pidfd those of the process that `nstype` names."""
    checked("setns", hex(nstype) if nstype else f"fd {fd}", _setns, fd, nstype, step=(fd, nstype))


def pin(path: str, kind: str) -> None:
    """Keeps the calling thread's namespace of `kind` (see KINDS) alive by a bind mount on `path`, a new file."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        mount(f"/proc/thread-self/ns/{kind}", path, "", MS_BIND)
    except OSError:
        os.unlink(path)
        raise


def unpin(path: str) -> None:
    """Undoes pin(); a pin that is gone, or half gone, is fine."""
    try:
        umount(path, MNT_DETACH | UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def open_namespace(kind: str, pid: int | None = None) -> int:
    """Opens the namespace of `kind` of a process, or of the calling thread; the descriptor is closed on exec."""
    process = "thread-self" if pid is None else pid
    return os.open(f"/proc/{process}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def in_thread(function: Callable[[], Result]) -> Result:
    """Runs `function` in a thread of its own that ends afterwards, and returns or raises what it did.

    For calls that change the thread's namespaces: the thread is thrown away, so nothing has to be put back.
    """
    outcome: list[tuple[Result | None, BaseException | None, list[steps.Step]]] = []
    finished = _thread.allocate_lock()
    record = steps.recording()

    def run() -> None:
        if record:
            steps.start_recording()
        try:
            result = function()
        except BaseException as error:  # carried to the caller's thread, whatever it is
            outcome.append((None, error, steps.stop_recording()))
        else:
            outcome.append((result, None, steps.stop_recording()))
        finally:
            finished.release()

    finished.acquire()
    _thread.start_new_thread(run, ())
    finished.acquire()
    result, error, recorded = outcome[0]
    steps.add(recorded)
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # without an error it is what function returned


def in_namespace(fd: int, function: Callable[[], Result]) -> Result:
    """Runs `function` inside the namespace `fd`; any kind but user, which is refused to processes with threads."""

    def join_and_run() -> Result:
        unshare(CLONE_FS)  # a mount namespace is joined only by a thread whose root and working directory are its own
        setns(fd)
        return function()

    return in_thread(join_and_run)


def new_namespace(kind: str) -> int:
    """Makes a namespace that nobody is in and returns a descriptor that keeps it alive; not for user, pid or time."""

    def make() -> int:
        unshare(KINDS[kind])
        return open_namespace(kind)

    return in_thread(make)


def clone_child(flags: int = 0, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Forks into new namespaces and a cgroup; returns (0, -1) in the child and (pid, pidfd) in the parent.

    `flags` are CLONE_NEW… (and CLONE_PARENT); `cgroup_fd` is a directory of the unified hierarchy. The child's Python
    is as after os.fork(). Only for processes of one thread. Raises OSError in the parent.
    """
    began = steps.begin()
    pidfd = c_int(-1)
    _before_fork()
    pid = _raw_clone(flags, pidfd, cgroup_fd)
    if pid == 0:
        _after_fork_in_child()
        return 0, -1
    code = ctypes.get_errno()
    _after_fork_in_parent()
    steps.end(began, "clone", (flags | CLONE_PIDFD | (0 if cgroup_fd is None else CLONE_INTO_CGROUP), pid))
    if pid < 0:
        ctypes.set_errno(code)
        raise_errno("clone", hex(flags))
    return pid, pidfd.value


def _raw_clone(flags: int, pidfd: ctypes.c_int, cgroup_fd: int | None) -> int:
    """clone3(2), or clone(2) and a join by the child where a kernel or a filter lacks it; 0 in the child."""
    thread_id = _thread_id_address()
    flags |= CLONE_PIDFD | (CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID if thread_id else 0)
    if features.clone3() and (cgroup_fd is None or features.clone_into_cgroup()):
        into_cgroup = CLONE_INTO_CGROUP if cgroup_fd is not None else 0
        arguments = clone_args(
            flags=flags | into_cgroup,
            pidfd=ctypes.addressof(pidfd),
            child_tid=thread_id,
            exit_signal=0 if flags & CLONE_PARENT else SIGCHLD,
            cgroup=cgroup_fd or 0,
        )
        return _clone3(ctypes.addressof(arguments), ctypes.sizeof(arguments))
    pidfd_address = ctypes.addressof(pidfd)
    tail = (thread_id, 0) if MACHINE == "x86_64" else (0, thread_id)  # clone(2): the order of child_tid and tls differs
    pid = _clone(flags | SIGCHLD, 0, pidfd_address, *tail)
    if pid == 0 and cgroup_fd is not None:
        _join_cgroup(cgroup_fd)
    return pid


def _join_cgroup(cgroup_fd: int) -> None:
    """Moves the calling process; a child that cannot join must not run, so it ends at once."""
    try:
        procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup_fd)
        os.write(procs, b"0")
        os.close(procs)
    except OSError:
        os._exit(127)


def _thread_id_address() -> int:
    """Where glibc keeps this thread's id: the kernel writes the child's there, as it does for glibc's own fork.

    Without CONFIG_CHECKPOINT_RESTORE it is unknown (0); then only pthread calls on the main thread see a stale id.
    """
    address = c_void_p()
    if _prctl_address(PR_GET_TID_ADDRESS, ctypes.addressof(address), 0, 0, 0) < 0:
        return 0
    return address.value or 0
