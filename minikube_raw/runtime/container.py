"""One container from inside its keeper: started, its output copied to the log, its end written down.

The keeper is the parent, so it learns the exit code; a keeper that took over after a crash is not, and asks the kernel
(PIDFD_GET_INFO) or the launcher, which inherits orphans. The exit record is on the disk before anybody is told.
"""

from __future__ import annotations

import os
import time

from minikube_raw.linux import fds, features, files, mounts, pidfd, signals, terminals
from minikube_raw.linux.cgroups import manager

from . import atomic, podusers, sandbox, wire
from .copying import DISK_SECONDS, PIPE_SIZE, STAGING_SIZE, Input, Output
from .logs import LogFile
from .loop import HUNG_UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from .child import Child
    from .loop import Loop
    from .wire import Socket

    Request = dict[str, Any]
    Answer = Callable[..., None]

    class Pod(Protocol):
        """What a container needs of its keeper."""

        loop: Loop
        request: Request
        scratch: tuple[int, int]
        pause_pidns: int
        user_namespace: int

        def hold(self, name: str, fd: int) -> None:
            """Lets the launcher hold a copy."""

        def release(self, name: str) -> None:
            """Gives copies up."""

        def take_child(self, cgroup: str, pid_target: str) -> Child:
            """A child that waits to become a container, in the PID namespace of another one if that is named."""
            ...

        def fork(self, flags: int, cgroup: str, pid_namespace: int) -> tuple[int, int]:
            """Forks into namespaces and a cgroup; (pid, pidfd)."""
            ...

        def ended(self, container: Container) -> None:
            """A container has ended."""

        def exit_code_of_orphan(self, pid: int) -> int | None:
            """The exit code of a process the launcher inherited."""
            ...


# How long whoever inherited a process may take to reap it; kernels before 6.15 would not tell us even then.
REAP_SECONDS, REAP_SECONDS_UNTOLD = 5.0, 0.2
UNKNOWN_EXIT = 137  # what Kubernetes reports with ContainerStatusUnknown


class Container:
    """A container that runs, or has run, under this keeper."""

    def __init__(self, pod: Pod, request: Request) -> None:
        self.pod, self.request = pod, request
        self.id: str = request["id"]
        self.run_dir: str = request["runDir"]
        self.log = LogFile(request["logPath"])
        self.outputs: dict[str, Output] = {}
        self.inputs: list[Input] = []
        self.stdin = -1
        self.terminal = -1
        self.pid = 0
        self.pidfd = -1
        self.started_at = 0
        self.exit: Request | None = None
        self.not_enforced: list[str] = []

    @property
    def tty(self) -> bool:
        """Whether its streams are a terminal."""
        return bool(self.request["spec"]["process"].get("terminal"))

    def start(self, volumes: list[int], answer: Answer) -> None:
        """Forks the first process; `answer` is called when its program runs or cannot. Owns `volumes`."""
        files.make_directories(self.run_dir)
        self.not_enforced = sandbox.create_cgroup(
            self.request["cgroup"], self.request["limits"], all_devices=self.request["privileged"]
        )
        opened = self._open_volumes(volumes)
        streams = self._make_streams()
        places, layers = self.request["rootfs"], []
        if self.pod.user_namespace >= 0:
            places = {"mountPoint": places["mountPoint"]}
            layers = [*self._open_images(), self._enter_user_namespace(opened, streams)]
        child = self.pod.take_child(self.request["cgroup"], self.request.get("pidTarget", ""))
        self.pid, self.pidfd = child.pid, child.pidfd
        self.pod.hold(f"{self.id}/process", self.pidfd)
        child.tell({"spec": self.request["spec"], "rootfs": places}, streams, [*opened, *layers])
        wire.close([*opened, *layers, *streams])
        Start(self, child.status, answer)

    def let_go(self, user: Request) -> None:
        """Notes who the first process is, and as whom it runs, right before it may run its program.

        Not earlier: until now it dies with us, and whoever takes over would take its death for the program's.
        """
        boot, pid, started = pidfd.process_identity(self.pid)
        identity = {"boot_id": boot, "pid": pid, "start_time": started, "created_at": time.time_ns(), "user": user}
        atomic.write_json(f"{self.run_dir}/process.json", identity)

    def _open_volumes(self, received: list[int]) -> list[int]:
        """Puts the descriptors that the kubelet opened and those the keeper opens (shared memory) in the order of the spec."""
        opened: list[int] = []
        left = list(received)
        for entry in self.request["spec"]["mounts"]:
            if entry["type"] == "bind":
                ours = entry["source"] == self.pod.request["shm"]
                opened.append(mounts.open_tree(entry["source"], recursive=False) if ours else left.pop(0))
        wire.close(left)
        return opened

    def _open_images(self) -> list[int]:
        """Opens the volumes that are images for a child whose user namespace could not."""
        place = self.request["rootfs"]["mountPoint"]
        entries = [entry for entry in self.request["spec"]["mounts"] if entry["type"] == "image"]
        return [podusers.open_image(entry["layers"], place, self.pod.user_namespace) for entry in entries]

    def _enter_user_namespace(self, volumes: list[int], streams: list[int]) -> int:
        """Makes what the container is given its user namespace's; returns its layers as a detached mount."""
        first_id, users = self.pod.request["firstUserId"], self.pod.user_namespace
        entries = [entry for entry in self.request["spec"]["mounts"] if entry["type"] == "bind"]
        for entry, volume in zip(entries, volumes, strict=True):
            if entry["source"] != self.pod.request["shm"]:  # a tmpfs of the pod's own: anybody may write
                podusers.shift(volume, users, entry["source"])
        podusers.give(streams, first_id)
        return podusers.open_layers(self.request["rootfs"], users, first_id)

    def _make_streams(self) -> list[int]:
        """Makes the FIFOs and starts copying; returns the container's ends (stdin, stdout, stderr), -1 for /dev/null."""
        if self.tty:
            return []
        ends = [-1, -1, -1]
        if self.request["stdin"]:
            self.stdin = self._fifo("stdin")
            ends[0] = os.open(f"{self.run_dir}/stdin", os.O_RDONLY | os.O_CLOEXEC)
            self._keep_only_writer()
        for number, name in ((1, "stdout"), (2, "stderr")):
            self._copy(name, self._fifo(name))
            # Both directions: while the container itself could read, a moment without any keeper is no SIGPIPE for it.
            ends[number] = os.open(f"{self.run_dir}/{name}", os.O_RDWR | os.O_CLOEXEC)
        return ends

    def _copy(self, name: str, source: int) -> None:
        """Copies a stream to the log, through a second FIFO that the launcher holds too."""
        staging = self._fifo(f"{name}.staging", STAGING_SIZE)
        self.outputs[name] = Output(self.pod, self.log, name, source, staging, f"{self.run_dir}/{name}.offset")

    def _fifo(self, name: str, size: int = PIPE_SIZE) -> int:
        """Opens a FIFO for both directions, made if it is not there, and lets the launcher hold it as well.

        Both directions: then neither the death of the keeper nor an early close by the container ends the stream.
        """
        path = f"{self.run_dir}/{name}"
        if not os.path.lexists(path):
            os.mkfifo(path, 0o600)
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fds.set_pipe_size(fd, size)
        if name != "stdin":
            self.pod.hold(f"{self.id}/{name}", fd)
        return fd

    def _keep_only_writer(self) -> None:
        """Swaps the two-way end of stdin for a write end: closing that one is the container's end of input."""
        writer = os.open(f"{self.run_dir}/stdin", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(self.stdin)
        self.stdin = writer
        self.pod.hold(f"{self.id}/stdin", writer)

    def take_terminal(self, master: int) -> None:
        """Copies from the container's terminal; the launcher holds it too, since its last close would send SIGHUP."""
        self.terminal = master
        os.set_blocking(master, False)
        self.pod.hold(f"{self.id}/terminal", master)
        self._copy("stdout", os.dup(master))

    def running(self, started_at: int) -> None:
        """Its program runs: from now on its end is watched."""
        self.started_at = started_at
        self.pod.loop.watch(self.pidfd, self._ended)

    def adopt(self, identity: Request, held: dict[str, int]) -> None:
        """Takes over a container whose keeper died: its streams as the launcher holds them (or by name), its pidfd by identity."""
        self.pid = identity["pid"]
        self.started_at = self.request.get("startedAt") or identity["created_at"]
        if self.tty and "terminal" in held:
            self.take_terminal(held["terminal"])
        elif not self.tty:
            for name in ("stdout", "stderr"):
                self._copy(name, self._fifo(name))
            self.stdin = held.get("stdin", -1)
        try:
            self.pidfd = held.get("process", -1)
            if self.pidfd < 0:
                self.pidfd = pidfd.open_process(identity["pid"], identity["start_time"], identity["boot_id"])
        except ProcessLookupError:
            self.finish(UNKNOWN_EXIT, known=False)
        else:
            self.pod.hold(f"{self.id}/process", self.pidfd)
            self.pod.loop.watch(self.pidfd, self._ended)

    def _ended(self) -> None:
        self.pod.loop.forget(self.pidfd)
        try:
            code, by_signal = pidfd.reap(self.pidfd)
        except ChildProcessError:  # we took it over: whoever inherited it must reap it before anybody can know
            self.pod.loop.watch(self.pidfd, self._reaped, HUNG_UP)
            told = features.pidfd_info_exit()
            self.pod.loop.call_later(REAP_SECONDS if told else REAP_SECONDS_UNTOLD, self._reaped)
        else:
            self.finish(128 + by_signal if by_signal else code)

    def _reaped(self) -> None:
        """Asks the kernel, or on kernels before 6.15 the launcher, how a process ended that is not our child."""
        if self.exit is not None:
            return
        self.pod.loop.forget(self.pidfd)
        status = pidfd.exit_info(self.pidfd)
        if status is None:
            code = self.pod.exit_code_of_orphan(self.pid)
        else:
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
        self.finish(UNKNOWN_EXIT if code is None else code, known=code is not None)

    def finish(self, code: int, *, known: bool = True, error: str = "", reason: str = "") -> None:
        """Writes the exit record, after the output is drained and before anybody is told."""
        group = manager(self.request["cgroup"])
        if self.request["pid"] != "CONTAINER":
            group.kill_all()  # without a PID namespace of its own the rest would live on
        for output in self.outputs.values():
            output.drain()
        oom_kills = group.oom_kills()
        self.exit = {
            "exit_code": code,
            "known": known,
            "started_at": self.started_at,
            "finished_at": time.time_ns(),
            "oom_killed": oom_kills > 0 and code == 128 + signals.SIGKILL,
            "oom_kills": oom_kills,
            "reason": reason,
            "message": error,
        }
        self._record_exit()
        for source in self.inputs:
            source.close()
        self.inputs.clear()
        self._close_outputs()
        wire.close([self.stdin, self.terminal, self.pidfd])
        self.stdin = self.terminal = self.pidfd = -1
        self.pod.ended(self)

    def _record_exit(self) -> None:
        """Writes the exit record; when the disk is full those who are connected hear of the end first, and it is written later."""
        try:
            atomic.write_json(self.request["exitPath"], self.exit, sync=True)
        except OSError:
            self.pod.loop.call_later(DISK_SECONDS, self._record_exit)

    def _close_outputs(self) -> None:
        """Closes what is in the log as a whole; what a full disk has not taken yet is kept, with our copies, and tried again."""
        for name, output in list(self.outputs.items()):
            if output.drain():
                output.close()
                del self.outputs[name]
        if self.outputs:
            self.pod.loop.call_later(DISK_SECONDS, self._close_outputs)
        else:
            self._let_go()

    def _let_go(self) -> None:
        self.log.close()
        self.pod.release(self.id)

    def forget(self) -> None:
        """The container is being removed: what its log has not taken by now it will not take."""
        for output in self.outputs.values():
            output.close()
        self.outputs.clear()
        self._let_go()

    def attach(self) -> list[int]:
        """Returns descriptors for a client: a socket with a terminal, else pipes (stdin if there is one, stdout, stderr)."""
        if self.tty:
            return [self._attach_terminal()]
        ends: list[int] = []
        if self.stdin >= 0:
            reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self.inputs.append(Input(self.pod.loop, reader, self.stdin, self._input_ended))
            ends.append(writer)
        for output in self.outputs.values():
            reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            fds.set_pipe_size(writer, PIPE_SIZE)
            output.taps.append(writer)
            ends.append(reader)
        return ends

    def _attach_terminal(self) -> int:
        tap, client = wire.stream_pair()
        output = self.outputs["stdout"]
        output.taps.append(tap)
        self.inputs.append(Input(self.pod.loop, os.dup(tap), self.terminal, lambda: output.untap(tap)))
        return client

    def _input_ended(self) -> None:
        """With stdinOnce the end of the first attached client's input is the container's."""
        if self.request.get("stdinOnce") and self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1
            self.pod.release(f"{self.id}/stdin")

    def resize(self, width: int, height: int) -> None:
        """Sets the size of the container's terminal."""
        if self.terminal >= 0:
            terminals.set_size(self.terminal, width, height)


class Start:
    """A first process on its way to exec: hears its status socket until it closes."""

    def __init__(self, container: Container, status: Socket, answer: Answer) -> None:
        self._container, self._status, self._answer = container, status, answer
        self._steps: list[str] = []
        self._ready = False
        self._error: Request | None = None
        container.pod.loop.watch(status.fileno(), self._hear)

    def _hear(self) -> None:
        try:
            message, received = wire.receive(self._status)
        except wire.Closed:
            self._done()
            return
        self._steps += [wire.recorded("child", self._container.pid, text) for text in message.get("steps", ())]
        if "terminal" in message:
            self._container.take_terminal(received[0])
        elif "ready" in message:
            self._ready = True
            self._container.let_go(message["user"])
            wire.send(self._status, {"go": True})
        else:
            self._error = message

    def _done(self) -> None:
        container = self._container
        container.pod.loop.forget(self._status.fileno())
        self._status.close()
        if not self._ready and self._error is None:
            self._error = {"error": "the process was killed before its program started", "reason": "StartError"}
        if self._error is None:
            container.running(time.time_ns())
            executed = {"pid": container.pid, "started_at": container.started_at, "executed_ns": time.monotonic_ns()}
            self._answer({**executed, "not_enforced": container.not_enforced, "steps": self._steps})
            return
        pidfd.reap(container.pidfd)
        container.finish(128, error=self._error["error"], reason=self._error["reason"])
        self._answer({"error": self._error["error"], "reason": self._error["reason"], "steps": self._steps})
