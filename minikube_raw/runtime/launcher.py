"""The launcher of a node: has a keeper forked per pod, holds a second copy of what must outlive a keeper, and does nothing else.

Keepers are forked from a fork of it (template). It runs from a sealed copy of the interpreter in memory (CVE-2019-5736),
imports linux/ and a little of the standard library, and once everything is imported forbids itself and all its children any
further import. Keepers and containers live on when it dies; a new one takes its place.
"""

from __future__ import annotations

import gc
import os
import sys

from minikube_raw.linux import fds, features, mounts, namespaces, pidfd, process, proctitle, rlimits, signals
from minikube_raw.linux.cgroups import manager

from . import rehearsal, wire, worker
from .loop import Loop
from .template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from .wire import Socket

    Request = dict[str, Any]

_MOST_ORPHANS = 4096


def main(arguments: Sequence[str]) -> NoReturn:
    """Becomes the launcher: seals itself, keeps only the mounts it needs, listens. Never returns."""
    cgroup, run_dir, *needed_paths = arguments
    _run_from_sealed_copy()
    proctitle.set_title(f"launcher {run_dir}")
    signals.reset()
    signals.ignore(signals.SIGPIPE)
    process.set_dumpable(False)
    process.become_subreaper()
    rlimits.raise_open_files()
    if cgroup:
        _enter_fresh(cgroup)
    os.makedirs(f"{run_dir}/root", 0o700, exist_ok=True)
    _keep_only_mounts(run_dir, [path for path in needed_paths if path])
    features.all()
    pidfd.boot_id()
    rehearsal.rehearse(f"{run_dir}/rehearsal")
    Launcher(run_dir).serve()
    os._exit(0)


def _enter_fresh(cgroup: str) -> None:
    """Moves into a cgroup made anew, unless keepers of an earlier launcher live in it.

    A directory that was emptied by cgroup.kill remembers it: Linux 6.14 and newer kill every child that is cloned from there
    into another cgroup (the kill_seq of the parent's cgroup is compared with that of the child's).
    """
    group = manager(cgroup)
    try:
        group.remove(0)
    except OSError:
        pass
    group.create()
    group.attach(0)


def _run_from_sealed_copy() -> None:
    """Executes the interpreter again from a sealed memfd, so that no container can reach and overwrite the program on disk."""
    try:
        current = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
        sealed = fds.is_sealed(current)
        os.close(current)
    except OSError:
        sealed = False
    if not sealed:
        interpreter = os.path.realpath("/proc/self/exe")
        memory = fds.sealed_copy(interpreter, "minikube-raw")
        os.execv(f"/proc/self/fd/{memory}", [interpreter, *sys.orig_argv[1:]])


def _keep_only_mounts(run_dir: str, needed: Sequence[str]) -> None:
    """Enters a private mount namespace and drops from it what keepers and containers do not need.

    Every container's mount namespace starts as a copy of this one, so its size is part of each pod's start, and a mount
    kept here could not be unmounted by its owner.
    """
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.set_propagation("/", mounts.MS_PRIVATE | mounts.MS_REC)
    run_dir = os.path.realpath(run_dir)
    places = [f"{os.path.realpath(path)}/" for path in (run_dir, *needed, "/var/log")]

    def is_needed(point: str) -> bool:
        if point == "/" or point.startswith(("/proc", "/sys", "/dev")):
            return True
        if not needed:
            return not point.startswith(f"{run_dir}/")
        return any(place.startswith(f"{point}/") for place in places)

    for point in reversed(mounts.mount_points_below("/")):
        if not is_needed(point):
            mounts.umount(point, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)


def forbid_imports() -> None:
    """Makes every further import fail: a child of ours that stands in an image's file system would import from the image."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


class Launcher:
    """Serves kubelets (run, spare) and keepers (hold, release, take)."""

    def __init__(self, run_dir: str) -> None:
        self._socket = f"{run_dir}/launcher.sock"
        self._loop = Loop()
        self._clients: dict[int, Socket] = {}
        self._held: dict[str, dict[str, int]] = {}  # sandbox → name → descriptor
        self._template: Template | None = None
        self._orphans: dict[int, int] = {}  # pid → exit code of processes whose keeper had died

    def serve(self) -> None:
        """Listens until killed."""
        listener = wire.listen(self._socket)
        self._loop.watch(listener.fileno(), lambda: self._accept(listener))
        self._watch_children()
        forbid_imports()
        gc.collect()
        gc.freeze()  # keepers' collections then touch (and copy) none of the pages shared with us
        self._loop.run()

    def _watch_children(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signals.wake_on(signals.SIGCHLD, writer)

        def reap() -> None:
            os.read(reader, 4096)
            self._reap()

        self._loop.watch(reader, reap)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            self._orphans[pid] = code if code >= 0 else 128 - code
            if len(self._orphans) > _MOST_ORPHANS:
                del self._orphans[next(iter(self._orphans))]

    def _accept(self, listener: Socket) -> None:
        connection = wire.accept(listener)
        if connection is not None:
            self._clients[connection.fileno()] = connection
            self._loop.watch(connection.fileno(), lambda: self._hear(connection))

    def _hear(self, connection: Socket) -> None:
        try:
            message, received = wire.receive(connection)
            self._dispatch(message, received, connection)
        except (wire.Closed, OSError):
            self._loop.forget(connection.fileno())
            self._clients.pop(connection.fileno(), None)
            connection.close()

    def _dispatch(self, message: Request, received: list[int], connection: Socket) -> None:
        operation = message["op"]
        if operation == "run":
            self._run(message["sandbox"], received[0])
        elif operation == "spare":
            self._make_spare(connection)
        elif operation == "hold":
            names = message["names"] if "names" in message else [message["name"]]  # a keeper of an earlier release
            self._hold(message["sandbox"], dict(zip(names, received, strict=True)))
        elif operation == "release":
            self._release(message["sandbox"], message.get("name"))
        elif operation == "retain":
            for forgotten in self._held.keys() - set(message["sandboxes"]):
                self._release(forgotten, None)
        elif operation == "take":
            self._give(message["sandbox"], connection)
        elif operation == "exit code":
            wire.send(connection, {"exit_code": self._orphans.get(message["pid"])})
        elif operation == "held":
            wire.send(connection, {"version": wire.VERSION, "pid": os.getpid(), "sandboxes": sorted(self._held)})
        else:
            wire.close(received)

    def _run(self, request: Request, connection: int) -> None:
        """Gives a sandbox to a keeper forked now; it answers for itself on the connection."""
        try:
            self._order(lambda template: template.fork_keeper(request, connection))
        except OSError as error:
            with wire.adopt(connection) as asked:
                wire.send(asked, {"id": 0, "error": f"cannot fork a keeper: {error.strerror}"})
            return
        os.close(connection)

    def _order(self, give: Callable[[Template], None]) -> None:
        """Gives an order to the template; to another one where that has died. Raises OSError when none can be forked."""
        template = self._template or self._new_template()
        try:
            give(template)
        except OSError:
            self._lose_template(template)
            give(self._new_template())

    def _new_template(self) -> Template:
        made = self._template = Template(self._socket)
        self._loop.watch(made.fileno(), lambda: self._lose_template(made))
        return made

    def _lose_template(self, template: Template) -> None:
        self._loop.forget(template.fileno())
        template.close()
        self._template = None

    def _make_spare(self, connection: Socket) -> None:
        """Has a keeper forked ahead of time, so that a pod need not wait for fork, page faults and namespaces; answers with its orders."""
        orders, theirs = wire.pair()
        with orders, theirs:
            try:
                self._order(lambda template: template.fork_spare(theirs.fileno()))
            except OSError as error:
                worker.report("launcher: no spare keeper", error)
                wire.send(connection, {"error": error.strerror or str(error)})
            else:
                wire.send(connection, {}, [orders.fileno()])

    def _hold(self, sandbox_id: str, descriptors: dict[str, int]) -> None:
        held = self._held.setdefault(sandbox_id, {})
        wire.close([held[name] for name in descriptors.keys() & held.keys()])
        held |= descriptors

    def _release(self, sandbox_id: str, name: str | None) -> None:
        """Closes what is held under a name and below it, or with None all that a sandbox has."""
        names = self._held.get(sandbox_id, {})
        for held in [key for key in names if name is None or key == name or key.startswith(f"{name}/")]:
            os.close(names.pop(held))
        if not names:
            self._held.pop(sandbox_id, None)

    def _give(self, sandbox_id: str, connection: Socket) -> None:
        names = list(self._held.get(sandbox_id, {}).items())
        while True:
            part, names = names[: wire.MOST_DESCRIPTORS], names[wire.MOST_DESCRIPTORS :]
            message = {"names": [name for name, _ in part], "more": bool(names)}
            wire.send(connection, message, [fd for _, fd in part])
            if not names:
                return
