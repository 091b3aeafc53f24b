"""Who makes the processes of a container: we ourselves (starting, execs), an OCI runtime that the pod's handler names, or CRIU.

A worker asks of() and starts and executes through what it gets; nobody else need know which it is. Either way the process is the
keeper's child in the end (an exec'd one the worker's), held by a pidfd, with our FIFOs or the master of its terminal.
"""

from __future__ import annotations

import os
import stat

from minikube_raw.linux import files, mounts, namespaces, pidfd, process, signals
from minikube_raw.linux.cgroups import manager

from . import atomic, execs, handover, init, recording, restored, rootfs, sandbox, starting, wire
from .criu import Failed as CriuFailed
from .criu import Restore
from .ociruntime import Failed, OciRuntime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Request = dict[str, Any]


class Executor:
    """Starts containers, and programs beside their first processes, from inside a worker."""

    def __init__(self, start: type[starting.Start], execute: type[execs.Exec]) -> None:
        self.start, self.execute = start, execute


def of(request: Request) -> Executor:
    """Returns who makes the processes of the container that the kubelet asked for with `request`."""
    if "restore" in request:
        return _CRIU
    return _RUNTIME if "runtime" in request else _OURS


class _RuntimeStart(starting.Start):
    """A container that an OCI runtime makes in namespaces, cgroup and streams of ours."""

    def _make_process(self, volumes: list[int], streams: list[int]) -> None:
        self._set_limits()
        runtime, pids = OciRuntime(self._request), self._pid_namespace()
        try:
            if runtime.known:
                runtime.delete()
            handover.write_request(self._request)  # whoever finds what a crash leaves knows whose it is
            found, self.pid, terminal = runtime.create(lambda: self._furnish(runtime.bundle, pids, volumes), streams)
            self.child_steps = recording.pack(found["steps"])
            self._take(found, terminal)
            runtime.start()
        except Failed as error:
            self._error = {"error": str(error), "reason": error.reason}
            self._give_up(runtime)
        finally:
            wire.close([*volumes, *streams])
        self._ready = True
        self._done()

    def _furnish(self, bundle: str, pids: str, volumes: list[int]) -> Request:
        """In the process that becomes the runtime: mounts what it finds by path, and writes config.json; who the user is.

        `pids` is the path of the PID namespace to join, "" for a new one.
        """
        spec, places = self._request["spec"], self._request["rootfs"]
        # Inherited: a runtime would fail where this host does not let it be lowered.
        process.set_oom_score_adj(spec["process"].get("oomScoreAdj", 0))
        images = rootfs.open_images(spec, places["mountPoint"])
        _attach(spec, f"{bundle}/volumes", volumes, images)
        mounts.overlay(places["mountPoint"], places["lowers"], places["upper"], places["work"], volatile=True)
        root = os.open(places["mountPoint"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        user = init.find_user(root, spec["process"]["user"])
        found = {"uid": user.uid, "gid": user.gid, "supplemental_groups": user.groups}
        atomic.write_json(f"{bundle}/config.json", self._config(found, user.home, pids))
        return {"user": found, "home": user.home}

    def _config(self, user: Request, home: str, pids: str) -> Request:
        """The document that the kubelet made, with what only shows here: the user's numbers and a PID namespace that exists."""
        config = self._request["runtime"]["config"]
        linux = config["linux"]
        if pids:
            linux = {**linux, "namespaces": [*linux["namespaces"], {"type": "pid", "path": pids}]}
        return {**config, "process": _as_user(config["process"], user, home), "linux": linux}

    def _pid_namespace(self) -> str:
        """The path of the one that the container joins, and its programs later by the same; "" for one of its own."""
        kind = self._request["pid"]
        if kind == "TARGET":
            return f"/proc/{self._worker.pid_of(self._request['pidTarget'])}/ns/pid"
        if kind == sandbox.POD:
            return f"/proc/{pidfd.pid_of(self._worker.held['pause'])}/ns/pid"
        return ""

    def _take(self, found: Request, terminal: int) -> None:
        """Holds what the runtime has made and notes whose it is, before its program may run."""
        first = os.pidfd_open(self.pid)
        self._worker.hold(f"{self._id}/process", first)
        os.close(first)
        if terminal >= 0:
            self._take_terminal(terminal)
        given = self._request["runtime"]
        given["config"]["process"] = _as_user(given["config"]["process"], found["user"], found["home"])
        handover.write_request(self._request)
        self._let_go(found["user"])

    def _give_up(self, runtime: OciRuntime) -> None:
        try:
            if runtime.known:
                runtime.delete()
        except Failed:
            pass  # the kubelet tries again when it removes the container

    def adopt(self, identity: Request) -> Request:
        """See Start; a container that was noted and not let go before the crash is let go now."""
        try:  # as it was made, with the user's numbers
            self._request["runtime"] = handover.read_request(self._run_dir)["runtime"]
        except (OSError, ValueError):
            pass
        known = super().adopt(identity)
        runtime = OciRuntime(self._request)
        try:
            if runtime.known and runtime.status() == "created":
                runtime.start()
        except Failed:
            pass  # it has ended meanwhile, which its keeper hears of
        return known


class _CriuStart(starting.Start):
    """A container whose processes CRIU makes again as a checkpoint has them."""

    def _make_cgroup(self) -> None:
        """See Start; what a crash left of an earlier attempt goes first, and so does the child that waits for its program."""
        cgroup, spare = self._request["cgroup"], self._worker.spare
        if spare is not None and self._worker.has_waiting(cgroup):
            self._worker.dismiss_child()
        elif (group := manager(cgroup)).exists():
            group.kill_all()
            group.remove()
        super()._make_cgroup()

    def _make_process(self, volumes: list[int], streams: list[int]) -> None:
        handover.write_request(self._request)
        criu = Restore(self._request)
        try:
            self.pid = criu.run(self._fork, lambda: self._furnish(volumes), streams)
            self.child_steps = criu.steps
            self._take(streams)
            self._ready = True
        except CriuFailed as error:
            self._error = {"error": str(error), "reason": "StartError"}
        finally:
            if not self._ready:
                manager(self._request["cgroup"]).kill_all()
            wire.close([*volumes, *streams])
        self._done()

    def _fork(self) -> tuple[int, int]:
        """Forks the keeper's child that becomes CRIU."""
        pid, criu = self._worker.fork(namespaces.CLONE_NEWNS, self._request["cgroup"], -1)
        self._worker.unreaped.append(pid)
        return pid, criu

    def _furnish(self, volumes: list[int]) -> None:
        """In the process that becomes CRIU: enters the container's cgroup, mounts its root and, by number, its volumes."""
        spec, places = self._request["spec"], self._request["rootfs"]
        init.join_keyring(self._request["cgroup"])
        init.join_cgroup(self._request["cgroup"])
        images = rootfs.open_images(spec, places["mountPoint"])
        mounts.overlay(places["mountPoint"], places["lowers"], places["upper"], places["work"], volatile=True)
        if spec["root"].get("readonly"):
            mounts.make_readonly(places["mountPoint"], recursive=False)
        directory = f"{self._request['runDir']}/volumes"
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        entries = [{**entry, "destination": f"{directory}/{number}"} for number, entry in enumerate(spec["mounts"])]
        rootfs.attach_volumes(root, {"mounts": entries}, volumes, images)

    def _take(self, streams: list[int]) -> None:
        """Holds the first process, sees to it that it and the others have what the pod asks for, and lets them go on."""
        first = os.pidfd_open(self.pid)
        self._worker.hold(f"{self._id}/process", first)
        os.close(first)
        found = manager(self._request["cgroup"]).procs()
        restored.check(self._request, self.pid, found)
        restored.rename(self.pid, self._request["spec"]["hostname"])
        restored.set_oom_score_adj(found, self._request["spec"]["process"].get("oomScoreAdj", 0))
        self._set_limits()
        user = restored.user_of(self.pid)
        for fd in streams:
            if fd >= 0:
                os.fchown(fd, user["uid"], -1)  # else it could not open /dev/stdout again
        self._let_go(user)
        restored.go_on(found)

    def adopt(self, identity: Request) -> Request:
        """See Start; a container that was noted and not let go before the crash is let go now."""
        if not self._request.get("startedAt"):
            restored.go_on(manager(self._request["cgroup"]).procs())
        return super().adopt(identity)


class _RuntimeExec(execs.Exec):
    """A program that an OCI runtime puts beside a container's first process."""

    def kill(self) -> None:
        """See Exec; the runtime may have left the program in the group that it was run in itself."""
        try:
            os.killpg(os.getpgid(self.pid), signals.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended

    def _begin(self, container: execs.Target, request: Request, streams: list[int]) -> None:
        process.become_subreaper()  # the runtime ends at once and leaves us its child
        try:
            document = _beside(container.request["runtime"]["config"]["process"], request["process"])
            runtime = OciRuntime(container.request)
            self.pid, terminal = runtime.execute(document, f"exec-{os.getpid()}", streams)
        except Failed as error:
            self._error = {"error": str(error)}
        else:
            self._ready, self.pidfd = True, os.pidfd_open(self.pid)
            if terminal >= 0:
                os.set_blocking(terminal, False)
                self.to_client.append(terminal)
        finally:
            wire.close(streams)
        self._done()


def _attach(spec: Request, directory: str, volumes: Sequence[int], images: Sequence[int]) -> None:
    """Mounts volumes and images where the runtime finds them: at the number of their entry in the spec's list of mounts."""
    left = {"bind": list(volumes), "image": list(images)}
    files.make_directories(directory)
    for number, entry in enumerate(spec["mounts"]):
        if entry["type"] in left:
            volume, place = left[entry["type"]].pop(0), f"{directory}/{number}"
            make = files.make_directory if stat.S_ISDIR(os.fstat(volume).st_mode) else files.make_empty_file
            make(place)
            mounts.move_mount(volume, place)


def _as_user(document: Request, user: Request, home: str) -> Request:
    """An OCI `process` run by a user that the image names; HOME is that one's unless it is set."""
    numbers = {"uid": user["uid"], "gid": user["gid"], "additionalGids": user["supplemental_groups"]}
    env = document["env"]
    if not any(pair.startswith("HOME=") for pair in env):
        env = [*env, f"HOME={home}"]
    return {**document, "user": {**document["user"], **numbers}, "env": env}


def _beside(first: Request, wanted: Request) -> Request:
    """The OCI `process` of what is executed beside `first`: with its rights, its user and its HOME."""
    home = [pair for pair in first["env"] if pair.startswith("HOME=")]
    env = wanted["env"] if any(pair.startswith("HOME=") for pair in wanted["env"]) else [*wanted["env"], *home]
    return {**first, "args": wanted["args"], "terminal": wanted["terminal"], "env": env}


_OURS = Executor(starting.Start, execs.Exec)
_RUNTIME = Executor(_RuntimeStart, _RuntimeExec)
_CRIU = Executor(_CriuStart, execs.Exec)
