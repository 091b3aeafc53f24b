"""The user namespace of a pod (hostUsers: false), from its keeper's workers: made first, owner of the pod's other namespaces.

Neither enters it: what is the node's (cgroups, layers, logs) stays within its reach. Children are born
inside, through a process in between, since whoever joins a user namespace below its own cannot come back. Layers and volumes
are handed to them as mounts with shifted owners.
"""

from __future__ import annotations

import os

from minikube_raw.linux import features, mounts, namespaces, pidfd, process

from . import sandbox, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

COUNT = 65_536  # ids per pod, as the kubelet's


def create(first_id: int, kinds: Iterable[str]) -> dict[str, int]:
    """Makes the user namespace with namespaces of `kinds` in it and joins the latter; returns descriptors by kind.

    A mount namespace is left out: the keeper's own is the node's business.
    """
    inner = [kind for kind in kinds if kind != "mnt"]
    hold, let_go = os.pipe2(os.O_CLOEXEC)
    pid, child = namespaces.clone_child(namespaces.CLONE_NEWUSER | sum(namespaces.KINDS[kind] for kind in inner))
    if pid == 0:
        os.close(let_go)
        os.read(hold, 1)
        os._exit(0)
    try:
        for name in ("uid_map", "gid_map"):
            _write(f"/proc/{pid}/{name}", f"0 {first_id} {COUNT}")
        made = {kind: namespaces.open_namespace(kind, pid) for kind in ("user", *inner)}
    finally:
        wire.close([hold, let_go])
        pidfd.reap(child)
        os.close(child)
    sandbox.join_namespaces(made)
    return made


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def fork_inside(user_namespace: int, flags: int, cgroup: str, pid_namespace: int) -> tuple[int, int, int]:
    """Forks a child of our parent that is in the user namespace, with new namespaces that belong to it.

    The process in between is our parent's child as well (CLONE_PARENT); it forks that one, tells us who it is, and ends.
    Returns (pid, pidfd, pid of the process in between, which is to be reaped), or (0, -1, -1) in the child.
    """
    ours, theirs = wire.pair()
    between, between_pidfd = namespaces.clone_child(namespaces.CLONE_PARENT)
    if between == 0:
        born = False
        try:
            if pid_namespace >= 0:
                namespaces.setns(pid_namespace, namespaces.CLONE_NEWPID)
            namespaces.setns(user_namespace, namespaces.CLONE_NEWUSER)
            pid, child = sandbox.fork_into(cgroup, flags | namespaces.CLONE_PARENT)
            if pid == 0:
                born = True
                wire.close([ours.detach(), theirs.detach()])
                return 0, -1, -1
            wire.send(theirs, {"pid": pid}, [child])
        except OSError as error:
            wire.send(theirs, {"error": error.strerror or str(error), "errno": error.errno or 0})
        finally:
            if not born:
                os._exit(0)
    os.close(between_pidfd)
    message, received = _received(ours, theirs)
    return message["pid"], received, between


def _received(ours: wire.Socket, theirs: wire.Socket) -> tuple[dict[str, Any], int]:
    """What a child of ours that only helps has to say, and the descriptor it gives."""
    theirs.close()
    with ours:
        message, received = wire.receive(ours)
    if "error" in message:
        raise OSError(message["errno"], message["error"])
    return message, received[0]


def become_root() -> None:
    """Inside: from the node's root, whom the user namespace does not know, to its own root, with every capability there."""
    process.set_groups([])
    process.set_ids(0, 0)


def is_foreign() -> bool:
    """Says whether we are in a user namespace that does not map who we are."""
    return os.getuid() != 0


def open_layers(places: dict[str, Any], user_namespace: int, first_id: int) -> int:
    """Returns the container's root file system as a detached mount: layers seen with shifted owners, the upper one given away."""
    opened = _open_shifted(places["lowers"], user_namespace)
    try:
        for directory in (places["upper"], places["work"]):
            os.chown(directory, first_id, first_id)
        if not features.overlay_detached_layers():
            return _open_attached(opened, places["mountPoint"], places["upper"], places["work"])
        return mounts.open_overlay(_names(opened), places["upper"], places["work"], volatile=True)
    finally:
        wire.close(opened)


def open_image(layers: Sequence[str], mount_point: str, user_namespace: int) -> int:
    """Returns an image's files as a detached mount, seen with shifted owners."""
    opened = _open_shifted(layers, user_namespace)
    if len(opened) == 1:
        return opened[0]
    try:
        if not features.overlay_detached_layers():
            return _open_attached(opened, mount_point)
        return mounts.open_overlay(_names(opened))
    finally:
        wire.close(opened)


def _open_shifted(layers: Sequence[str], user_namespace: int) -> list[int]:
    opened: list[int] = []
    try:
        for layer in layers:
            opened.append(mounts.open_tree(layer, recursive=False))
            shift(opened[-1], user_namespace, layer)
    except OSError:
        wire.close(opened)
        raise
    return opened


def _names(opened: Sequence[int]) -> list[str]:
    return [f"/proc/self/fd/{fd}" for fd in opened]


def _open_attached(layers: Sequence[int], place: str, upper: str | None = None, work: str | None = None) -> int:
    """The overlay of detached layers where the kernel wants them attached: by a child, in a mount namespace that ends with it.

    In ours a crash would leave an image's layer mounted where later only a container's own files are expected, and removed.
    """
    ours, theirs = wire.pair()
    pid, child = namespaces.clone_child(namespaces.CLONE_NEWNS)
    if pid == 0:
        try:
            mounts.set_propagation("/", mounts.MS_PRIVATE | mounts.MS_REC)
            for layer in layers:
                mounts.move_mount(layer, place)
            mounts.overlay(place, _names(layers), upper, work, volatile=True)
            wire.send(theirs, {}, [mounts.open_tree(place, recursive=False)])
        except OSError as error:
            wire.send(theirs, {"error": error.strerror or str(error), "errno": error.errno or 0})
        finally:
            os._exit(0)
    try:
        return _received(ours, theirs)[1]
    finally:
        pidfd.reap(child)
        os.close(child)


def shift(volume: int, user_namespace: int, name: str) -> None:
    """Lets a detached mount (with all in it) show its owners as the pod's ids; OSError says which file system cannot."""
    try:
        mounts.mount_setattr("", set=mounts.MOUNT_ATTR_IDMAP, userns_fd=user_namespace, recursive=True, dirfd=volume)
    except OSError as error:
        text = "cannot be mounted in the pod's user namespace: its file system has no idmapped mounts"
        raise OSError(error.errno, text, name) from None


def give(descriptors: Sequence[int], first_id: int) -> None:
    """Gives pipes to the pod's root, who could not change their owner else."""
    for fd in descriptors:
        if fd >= 0:
            os.fchown(fd, first_id, first_id)
