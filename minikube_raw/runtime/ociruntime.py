"""Calls of an OCI runtime (runc, crun, runsc) as its command line has them, for one container; each is a process that we wait for.

The runtime makes processes and mounts; the pod's namespaces, cgroups, streams and what becomes of exit codes stay ours. It is run
in the namespaces of the pod, from a mount namespace that ends with the call.
"""

from __future__ import annotations

import os

from minikube_raw.linux import cgroup_mounts, fds, files, mounts, namespaces, pidfd, process, signals, steps

from . import atomic, init, jsontext, sandbox, users, wire
from .consoles import Console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from .wire import Socket

    Message = dict[str, Any]

_UNABLE = "unable to start container process: "  # our own words say so already
_LOG_TAIL = 1 << 16


class Failed(Exception):
    """The runtime could not do it; `reason` is the container reason that Kubernetes shows."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def state_directory(run_dir: str) -> str:
    """Where a runtime keeps its state of the container with this run directory, and of no other."""
    return f"{run_dir}/runtime"


class OciRuntime:
    """A runtime and one container of its. `request` is what the kubelet asked to start (handlers.py adds `runtime` to it)."""

    def __init__(self, request: Message) -> None:
        given = request["runtime"]
        self._root = state_directory(request["runDir"])
        self._command: list[str] = [*given["command"], "--root", self._root]
        self._id, self._cgroup = request["id"], request["cgroup"]
        self.bundle = f"{request['runDir']}/bundle"

    @property
    def known(self) -> bool:
        """Whether the runtime may have a state of the container, of a start that a crash interrupted too."""
        return os.path.isdir(self._root)

    def create(self, prepare: Callable[[], Message], streams: Sequence[int]) -> tuple[Message, int, int]:
        """`create`: returns what `prepare` found out, the first process, and the terminal's master (-1: none is wanted).

        `prepare` runs before it, where the runtime will, in a mount namespace of its own, and writes config.json. `streams` are
        the container's; none are a terminal.
        """
        files.make_directories(self.bundle)
        with Console(self.bundle, "console.sock", wanted=not streams) as console:
            found = self._run("create", ["--bundle", self.bundle, *console.arguments], prepare, streams)
            return found, self._pid("create"), console.receive()

    def start(self) -> None:
        """`start`: lets the program run."""
        self._run("start")

    def status(self) -> str:
        """`state`: created, running or stopped."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            self._run("state", streams=(-1, writer, -1))
            status: str = jsontext.loads(os.read(reader, _LOG_TAIL))["status"]
        finally:
            wire.close([reader, writer])
        return status

    def delete(self) -> None:
        """`delete --force`: kills what is left of it and forgets it."""
        self._run("delete", ["--force"])

    def execute(self, document: Message, name: str, streams: Sequence[int]) -> tuple[int, int]:
        """`exec`: runs a program beside the first process; returns its process and the terminal's master (-1: none is wanted).

        `document` is an OCI `process`; `name` is no other exec's.
        """
        described = f"{self.bundle}/{name}.json"
        atomic.write_json(described, document)
        try:
            with Console(self.bundle, f"{name}.sock", wanted=not streams) as console:
                self._run("exec", ["--detach", "--process", described, *console.arguments], None, streams, name)
                return self._pid(name), console.receive()
        finally:
            for path in (described, f"{self.bundle}/{name}.pid", f"{self.bundle}/{name}.log"):
                if os.path.lexists(path):
                    os.unlink(path)

    def _pid(self, name: str) -> int:
        with open(f"{self.bundle}/{name}.pid", encoding="ascii") as file:
            return int(file.read())

    def _run(
        self,
        verb: str,
        arguments: Sequence[str] = (),
        prepare: Callable[[], Message] | None = None,
        streams: Sequence[int] = (),
        name: str = "",
    ) -> Message:
        """Runs a verb to its end; returns what `prepare` did, in the process that becomes the runtime. Raises Failed."""
        log = f"{self.bundle}/{name or verb}.log"
        argv = [*self._command, "--log", log, "--log-format", "json", verb, *arguments]
        if verb in ("create", "exec"):
            argv += ["--pid-file", f"{self.bundle}/{name or verb}.pid"]
        with steps.step(f"{os.path.basename(argv[0])} {verb}", self._id):
            status, theirs = wire.pair()
            # Where the runtime sees v1 alone (hide_other_hierarchies), the unified cgroup is our business.
            unified = (
                self._cgroup if cgroup_mounts.hierarchies().mode == "hybrid" and verb in ("create", "exec") else ""
            )
            pid, runtime = sandbox.fork_into(unified, namespaces.CLONE_NEWNS)
            if pid == 0:
                self._become([*argv, self._id], theirs, prepare, streams)
            theirs.close()
            found = hear(status)
            code, by_signal = pidfd.reap(runtime)
            os.close(runtime)
        if "error" in found:
            raise Failed(found["reason"], found["error"])
        if code or by_signal:
            ended = f"signal {by_signal}" if by_signal else f"exit status {code}"
            raise Failed("StartError", _last_error(log) or f"{os.path.basename(argv[0])} {verb} ended with {ended}")
        return found

    def _become(
        self, argv: list[str], status: Socket, prepare: Callable[[], Message] | None, streams: Sequence[int]
    ) -> NoReturn:
        """Turns a child of the worker into the runtime, which ends with us until then and after."""
        try:
            steps.start_recording()
            process.set_parent_death_signal(signals.SIGKILL)
            os.setsid()
            hide_other_hierarchies()
            found = prepare() if prepare is not None else {}
            wire.send(status, {**found, "steps": steps.stop_recording()})
            os.chdir(self.bundle)
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            for number, fd in enumerate(streams or (-1, -1, -1)):
                os.dup2(fd if fd >= 0 else null, number, inheritable=True)
            fds.close_all_but([0, 1, 2, status.fileno()])
            os.umask(0o022)
            signals.reset()
            process.go_with_others()
            os.execve(argv[0], argv, {"PATH": init.DEFAULT_PATH})
        except users.UnknownUser as error:
            wire.send(status, {"error": str(error), "reason": "CreateContainerError"})
        except OSError as error:
            wire.send(status, {"error": init.describe(error), "reason": "StartError"})
        except BaseException as error:  # whatever it is, it must not unwind into the worker
            wire.send(status, {"error": f"{type(error).__name__}: {error}", "reason": "StartError"})
        finally:
            os._exit(1)


def hide_other_hierarchies() -> None:
    """Leaves in our own mount namespace only those v1 hierarchies that hold containers' limits; a host with v2 alone has no other.

    crun refuses a unified one beside them, and runc would make directories in all others (name=systemd) and leave the pod's
    there. What is started is put into the unified one by us.
    """
    kept = set(cgroup_mounts.hierarchies().v1.values())
    if kept:
        mounts.set_propagation("/", mounts.MS_PRIVATE | mounts.MS_REC)
    for root in {os.path.dirname(path) for path in kept}:
        for point in reversed(mounts.mount_points_below(root)):
            if point != root and point not in kept:
                mounts.umount(point, mounts.MNT_DETACH)


def hear(status: Socket) -> Message:
    """What the process says until it becomes the runtime or ends."""
    found: Message = {}
    try:
        while True:
            found.update(wire.receive(status)[0])
    except wire.Closed:
        status.close()
        return found


def _last_error(log: str) -> str:
    """The last error in a runtime's log (JSON lines with `level` and `msg`), without what we say ourselves; "" if there is none."""
    try:
        with open(log, "rb") as file:
            lines = file.read()[-_LOG_TAIL:].splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        try:
            entry = jsontext.loads(line)
            if entry["level"] in ("error", "fatal"):
                return str(entry["msg"]).rpartition(_UNABLE)[2]
        except (ValueError, KeyError, TypeError):
            continue
    return ""
