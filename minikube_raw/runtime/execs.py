"""Processes started beside a container's first one (exec, probes, hooks), from inside a worker.

Their streams are pipes or a terminal whose other ends go straight to the kubelet, so nobody of ours copies anything: when the
client goes, the process gets SIGPIPE, end of file or SIGHUP, as with any terminal.
"""

from __future__ import annotations

import os

from minikube_raw.linux import fds, pidfd, signals

from . import entering, init, podusers, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .worker import Worker

    Request = dict[str, Any]


class Target:
    """The container beside whose first process something is executed: its request as the kubelet sent it, that process."""

    __slots__ = ("pid", "pidfd", "request")

    def __init__(self, request: Request, pid: int, process: int) -> None:
        self.request, self.pid, self.pidfd = request, pid, process


class Exec:
    """One such process, from fork to exit."""

    def __init__(
        self,
        pod: Worker,
        container: Target,
        request: Request,
        answer: Callable[..., None],
        ended: Callable[[int], None],
    ) -> None:
        self.pod, self.answer, self._ended_callback = pod, answer, ended
        self._error: Request | None = None
        self._ready = False
        self.to_client: list[int] = []
        self.pid, self.pidfd = -1, -1
        streams = [] if request["process"].get("terminal") else self._make_pipes(bool(request.get("stdin")))
        self._begin(container, request, streams)

    def _begin(self, container: Target, request: Request, streams: list[int]) -> None:
        """Has a child become the program, or says why not. Owns `streams`."""
        pod = self.pod
        self._status, theirs = wire.pair()
        if pod.user_namespace >= 0:
            podusers.give(streams, pod.request["firstUserId"])
        spec = {**container.request["spec"], "process": request["process"], "root": {}}
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)  # the node's: inside, anything may be called so by now
        job = init.Job(spec, container.request["cgroup"], theirs, streams, null=null)
        try:
            self.pid, self.pidfd = self._fork(job, container)
        except OSError as error:  # the container has just ended, or has no room for a process
            wire.send(theirs, {"error": init.describe(error)})
        if self.pid == 0:
            init.run_exec(job, user_namespace=pod.user_namespace >= 0)
        theirs.close()
        wire.close([null, *streams])
        pod.loop.watch(self._status.fileno(), self._hear)

    def _fork(self, job: init.Job, container: Target) -> tuple[int, int]:
        """Forks into the container, so that the process is our child and the container's at once."""
        mapped, namespace = self.pod.user_namespace >= 0, -1
        if container.request["pid"] != "NODE":
            namespace = os.open(f"/proc/{container.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return entering.fork_inside(job, container.pidfd, namespace, user_namespace=mapped)
        finally:
            wire.close([namespace])

    def _make_pipes(self, stdin: bool) -> list[int]:
        """Returns the child's ends; the client's are put aside, non-blocking."""
        streams = [-1, -1, -1]
        if stdin:
            streams[0], writer = os.pipe2(os.O_CLOEXEC)
            self.to_client.append(writer)
        for number in (1, 2):
            reader, streams[number] = os.pipe2(os.O_CLOEXEC)
            fds.set_pipe_size(reader, 1 << 18)
            self.to_client.append(reader)
        for fd in self.to_client:
            os.set_blocking(fd, False)
        return streams

    def _hear(self) -> None:
        try:
            message, received = wire.receive(self._status)
        except wire.Closed:
            self.pod.loop.forget(self._status.fileno())
            self._status.close()
            self._done()
            return
        if "error" in message:
            self._error = message
        elif "terminal" in message:
            os.set_blocking(received[0], False)
            self.to_client.append(received[0])
        elif "ready" in message:
            self._ready = True
            wire.send(self._status, {"go": True})

    def _done(self) -> None:
        if self._error is None and not self._ready:
            self._error = {"error": "the process was killed before its program started", "reason": "ExecError"}
        if self._error is not None:
            if self.pidfd >= 0:
                pidfd.reap(self.pidfd)
                os.close(self.pidfd)
            self.answer({"error": self._error["error"], "reason": "ExecError"})
        else:
            self.answer({"pid": self.pid}, self.to_client)
            self.pod.loop.watch(self.pidfd, self._exited)
        wire.close(self.to_client)

    def kill(self) -> None:
        """Sends SIGKILL to the process and what it started in its group; its end is told as any other."""
        try:
            os.killpg(self.pid, signals.SIGKILL)
        except ProcessLookupError:
            pass  # it is not the leader of its group yet
        pidfd.send_signal(self.pidfd, signals.SIGKILL)

    def _exited(self) -> None:
        self.pod.loop.forget(self.pidfd)
        code, by_signal = pidfd.reap(self.pidfd)
        os.close(self.pidfd)
        self._ended_callback(128 + by_signal if by_signal else code)
