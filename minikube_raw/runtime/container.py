"""One container from inside its keeper: its output copied to the log, its end written down. A worker has started it.

The keeper is the parent, so it learns the exit code; a keeper that took over after a crash is not, and asks the kernel
(PIDFD_GET_INFO) or the launcher, which inherits orphans. The exit record is on the disk before anybody is told.
"""

from __future__ import annotations

import os
import time

from minikube_raw.linux import fds, features, pidfd, signals, terminals
from minikube_raw.linux.cgroups import manager, oom

from . import atomic, wire
from .copying import DISK_SECONDS, PIPE_SIZE, Input, Output
from .logs import LogFile
from .loop import HUNG_UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from .loop import Loop

    Request = dict[str, Any]

    class Pod(Protocol):
        """What a container needs of its keeper."""

        loop: Loop
        scratch: tuple[int, int]

        def release(self, name: str) -> None:
            """Gives copies up."""

        def ended(self, container: Container) -> None:
            """A container has ended."""

        def exit_code_of_orphan(self, pid: int) -> int | None:
            """The exit code of a process the launcher inherited."""
            ...


# How long whoever inherited a process may take to reap it; kernels before 6.15 would not tell us even then.
REAP_SECONDS, REAP_SECONDS_UNTOLD = 5.0, 0.2
_HELD = ("stdin", "stdout", "stdout.staging", "stderr", "stderr.staging", "terminal", "process")
UNKNOWN_EXIT = 137  # what Kubernetes reports with ContainerStatusUnknown


class Container:
    """A container that runs, or has run, under this keeper."""

    def __init__(self, pod: Pod, request: Request) -> None:
        """`request` is what handover.summary() keeps of the kubelet's, with the process and when it started."""
        self.pod, self.request = pod, request
        self.id: str = request["id"]
        self.run_dir: str = request["runDir"]
        self.tty: bool = request["tty"]  # its streams are a terminal
        self.pid: int = request["process"]
        self.started_at: int = request["startedAt"]
        self.log = LogFile(request["logPath"])
        self.outputs: dict[str, Output] = {}
        self.inputs: list[Input] = []
        self.stdin = -1
        self.terminal = -1
        self.pidfd = -1
        self.exit: Request | None = None

    def take(self, pod_held: dict[str, int]) -> None:
        """Copies its streams and watches its end, from what a worker has made or found and the pod holds."""
        held = {name: fd for name in _HELD if (fd := pod_held.get(f"{self.id}/{name}", -1)) >= 0}
        if self.tty and "terminal" in held:
            self.terminal = os.dup(held["terminal"])
            self._copy("stdout", os.dup(self.terminal), held["stdout.staging"])
        elif not self.tty:
            for name in ("stdout", "stderr"):
                self._copy(name, os.dup(held[name]), held[f"{name}.staging"])
            self.stdin = os.dup(held["stdin"]) if "stdin" in held else -1
        if "process" in held:
            self.pidfd = os.dup(held["process"])
            self.pod.loop.watch(self.pidfd, self._ended)
        else:
            self.finish(UNKNOWN_EXIT, known=False)

    def fail(self, pod_held: dict[str, int], error: str, reason: str) -> None:
        """Its program does not run; if there was a process, it has ended or is about to."""
        if (process := pod_held.get(f"{self.id}/process", -1)) >= 0:
            pidfd.reap(process)
        self.finish(128, error=error, reason=reason)

    def _copy(self, name: str, source: int, staging: int) -> None:
        """Copies a stream to the log, through a second FIFO that the launcher holds too."""
        offset = f"{self.run_dir}/{name}.offset"
        self.outputs[name] = Output(self.pod, self.log, name, source, os.dup(staging), offset)

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
        if self.request["pid"] != "CONTAINER":
            manager(self.request["cgroup"]).kill_all()  # without a PID namespace of its own the rest would live on
        for output in self.outputs.values():
            output.drain()
        oom_kills = oom.kills(self.request["oomFile"]) if self.request["oomFile"] else 0
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
