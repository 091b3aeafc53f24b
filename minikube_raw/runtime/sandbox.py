"""A pod sandbox from inside its keeper: the pod's namespaces (in which the keeper itself lives), shared memory and cgroup.

Containers are forked by the keeper, so they are born into the pod's net, ipc and uts namespaces without joining anything.
The network is the kubelet's work (CNI), done meanwhile through the namespace's descriptor. Knows no container.
"""

from __future__ import annotations

import errno
import os

from minikube_raw.linux import fds, files, mounts, namespaces, pidfd, process, procfs, signals, steps
from minikube_raw.linux.cgroups import DEFAULT_DEVICES, DeviceRule, Limits, manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    Request = dict[str, Any]

NODE = "NODE"
POD = "POD"
SHM_SIZE = "64m"
# Those of an IPC namespace (ipc_namespaces(7)), besides fs/mqueue/*.
_IPC_SYSCTLS = frozenset(
    f"kernel/{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
# A pod with a network and an IPC namespace of its own: what spare keepers are made for.
USUAL = {"network": POD, "ipc": POD}
# In this order a keeper that takes over joins them; "mnt" last, since it changes what paths mean.
KINDS = ("ipc", "uts", "net", "mnt")


def is_usual(request: Request) -> bool:
    """Says whether a spare keeper has the namespaces that this sandbox needs."""
    return not request.get("adopt") and not request.get("firstUserId") and own_kinds(request) == own_kinds(USUAL)


def own_kinds(request: Request) -> dict[str, int]:
    """Returns the namespaces that the sandbox has of its own (kind → clone flag); the others are the node's."""
    kinds = {"mnt": namespaces.CLONE_NEWNS, "uts": namespaces.CLONE_NEWUTS}
    if request["network"] != NODE:
        kinds["net"] = namespaces.CLONE_NEWNET
    else:
        del kinds["uts"]  # on the node's network a pod has the node's name
    if request["ipc"] != NODE:
        kinds["ipc"] = namespaces.CLONE_NEWIPC
    return kinds


def create_namespaces(request: Request) -> dict[str, int]:
    """Moves this process into new namespaces; returns a descriptor of each by kind."""
    kinds = own_kinds(request)
    namespaces.unshare(sum(kinds.values()))
    return {kind: namespaces.open_namespace(kind) for kind in kinds}


def join_namespaces(descriptors: dict[str, int]) -> None:
    """Joins the namespaces that an earlier keeper of this sandbox made."""
    for kind in KINDS:
        if kind in descriptors:
            namespaces.setns(descriptors[kind], namespaces.KINDS[kind])


def configure(request: Request, *, loopback: bool = True) -> None:
    """Sets up what containers will find: host name, loopback (unless that is up), sysctls, /dev/shm."""
    kinds = own_kinds(request)
    if "uts" in kinds:
        process.set_hostname(request["hostname"])
    if "net" in kinds and loopback:
        process.set_link_up("lo")
    for name, value in request.get("sysctls", {}).items():
        _write_sysctl(name.replace(".", "/"), value, kinds)
    if "ipc" in kinds:
        _mount_shared_memory(request["shm"])


def make_shared_memory(request: Request) -> None:
    """Gives a keeper that found no mount namespace of an earlier one its own, with an empty /dev/shm for later containers."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    if request["ipc"] != NODE:
        _mount_shared_memory(request["shm"])


def _mount_shared_memory(path: str) -> None:
    files.make_directories(path)
    flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
    mounts.mount("shm", path, "tmpfs", flags, f"mode=1777,size={SHM_SIZE}")


def _write_sysctl(name: str, value: str, kinds: dict[str, int]) -> None:
    """Writes a sysctl of a namespace that the pod has of its own; any other would be the host's (core_pattern runs programs)."""
    if not _is_own(name, kinds):
        raise OSError(errno.EPERM, "sysctl is not in a namespace of the pod's own", name)
    path = f"/proc/sys/{name}"
    began = steps.begin()
    file = procfs.open_file(f"sys/{name}", os.O_WRONLY)
    try:
        os.write(file, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"sysctl {name.replace('/', '.')}: {os.strerror(error.errno or 0)}", value) from None
    finally:
        os.close(file)
        steps.end(began, "write", f"{path}={value}")


def _is_own(name: str, kinds: dict[str, int]) -> bool:
    return ("net" in kinds and name.startswith("net/")) or (
        "ipc" in kinds and (name in _IPC_SYSCTLS or name.startswith("fs/mqueue/"))
    )


def create_cgroup(path: str, *, all_devices: bool = True, devices: Sequence[Request] = ()) -> None:
    """Makes a cgroup (and its missing parents) in every hierarchy; unless `all_devices`, for the usual devices only.

    `devices` may be used too; they are as in OCI's linux.resources.devices.
    """
    group = manager(path)
    group.create()
    if not all_devices:
        group.set_devices([*DEFAULT_DEVICES, *_rules(devices)])


def allow_more_devices(path: str, *, all_devices: bool, devices: Sequence[Request]) -> None:
    """Lets a cgroup that create_cgroup() made for the usual devices use all, or these too, at any time."""
    if all_devices or devices:
        manager(path).allow_devices([DeviceRule("a")] if all_devices else _rules(devices), DEFAULT_DEVICES)


def _rules(devices: Sequence[Request]) -> list[DeviceRule]:
    return [DeviceRule(each["type"], each["major"], each["minor"], each["access"]) for each in devices]


def set_limits(path: str, limits: Request) -> list[str]:
    """Sets a cgroup's limits; returns the names of those that this host cannot enforce."""
    return manager(path).set_limits(Limits(**limits))


def fork_into(cgroup: str, flags: int) -> tuple[int, int]:
    """Forks a child into new namespaces and, where the kernel can, right into a cgroup ("": ours); (pid, pidfd), (0, -1) in it."""
    directory = manager(cgroup).open_unified() if cgroup else None
    try:
        return namespaces.clone_child(flags, directory)
    finally:
        if directory is not None:
            os.close(directory)


def start_pause(request: Request, fork: Callable[[int, str, int], tuple[int, int]]) -> tuple[int, int]:
    """Starts the first process of a PID namespace that the pod's containers share; returns (pid, pidfd).

    It lives in a cgroup below the pod's, so that it ends with the pod even when nobody is left who knows of it.
    """
    cgroup = f"{request['cgroup']}/pause"
    create_cgroup(cgroup, all_devices=False)
    pid, opened = fork(namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNS, cgroup, -1)
    if pid == 0:
        _pause(cgroup, request["mountPoint"])
    return pid, opened


def find_pause(request: Request) -> tuple[int, int]:
    """Finds the process that start_pause() started, by its cgroup; (pid, pidfd). Raises ProcessLookupError when it has ended."""
    group = manager(f"{request['cgroup']}/pause")
    for pid in group.procs():
        found = os.pidfd_open(pid)
        if pid in group.procs():
            return pid, found
        os.close(found)
    raise ProcessLookupError(errno.ESRCH, "the pod's process namespace has ended")


def pause_is_over(process: int) -> bool:
    """Says whether the process that start_pause() started has ended, or is about to and has the rest of its namespace killed.

    It has no memory by then (do_exit()), and is no zombie before everybody else is reaped (zap_pid_ns_processes()).
    """
    try:
        with open(f"/proc/{pidfd.pid_of(process)}/statm", "rb") as file:
            return file.read(2) == b"0 "
    except (FileNotFoundError, ProcessLookupError):
        return True


def _pause(cgroup: str, mount_point: str) -> NoReturn:
    """Does nothing for ever, in an empty file system, since containers can see this process.

    Ignoring SIGCHLD makes the kernel reap the pod's orphans by itself (wait(2)), so PID 1 needs no loop.
    """
    try:
        fds.close_all_but([])
        os.setsid()
        manager(cgroup).attach(0)
        process.set_name("pause")
        mounts.tmpfs(mount_point, mode=0o555)
        mounts.switch_root(mount_point)
        signals.reset()
        signals.ignore(signals.SIGCHLD)
        while True:
            signals.wait()
    finally:
        os._exit(1)
