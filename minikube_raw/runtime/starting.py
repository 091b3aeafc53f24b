"""A container from its cgroup to its program, in a worker: streams made and held, first process forked, told and let go.

What is made here the keeper takes over once the program runs: nobody copies output before, it waits in the FIFOs.
"""

from __future__ import annotations

import os
import time

from minikube_raw.linux import fds, files, mounts, overlay, pidfd

from . import atomic, handover, podusers, sandbox, wire
from .copying import PIPE_SIZE, STAGING_SIZE
from .logs import LogFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .child import Child
    from .worker import Worker

    Request = dict[str, Any]

KILLED = "the process was killed before its program started"
OUTPUTS = ("stdout", "stdout.staging", "stderr", "stderr.staging")


class Start:
    """A container on its way to exec: hears its first process until that closes its status socket."""

    def __init__(self, worker: Worker, request: Request) -> None:
        self._worker, self._request = worker, request
        self._id: str = request["id"]
        self._run_dir: str = request["runDir"]
        self._root_given = bool(request.pop("rootGiven", False))
        self._root: list[int] = []  # the root file system as a mount, if the kubelet has made it
        self._tty = bool(request["spec"]["process"].get("terminal"))
        self._child: Child | None = None
        self._not_enforced: list[str] = []
        self._identity: tuple[str, int, int] | None = None
        self._ready = self._steps_follow = False
        self._error: Request | None = None
        self.pid = 0
        self.started_at = 0
        self.answer: Request = {}
        self.child_steps = b""  # packed

    def begin(self, volumes: list[int]) -> None:
        """Forks the first process; the worker's loop stops when its program runs or cannot. Owns `volumes`.

        The last of them is the root file system if the request says that it is given.
        """
        self._root = [volumes.pop()] if self._root_given else []
        files.make_directories(self._run_dir)
        if not self._root_given:  # it may have been mounted by a start or a kubelet that a crash interrupted
            overlay.forget_volatile(self._request["rootfs"]["work"])
        self._make_cgroup()
        opened = self._open_volumes(volumes)
        streams = self._make_streams()
        self._make_process(opened, streams)

    def _make_process(self, volumes: list[int], streams: list[int]) -> None:
        """Has a child become the first process. Owns volumes (in the spec's order) and streams."""
        places, layers = self._request["rootfs"], self._root
        if layers:
            places = {"mountPoint": places["mountPoint"]}
        elif self._worker.user_namespace >= 0:
            places = {"mountPoint": places["mountPoint"]}
            layers = [*self._open_images(), self._enter_user_namespace(volumes, streams)]
        child = self._child = self._worker.take_child(self._request["cgroup"], self._request.get("pidTarget", ""))
        self.pid = child.pid
        child.tell({"spec": self._request["spec"], "rootfs": places}, streams, [*volumes, *layers])
        # What follows is done while the child builds its world: it runs no program before _let_go().
        self._worker.hold(f"{self._id}/process", child.pidfd)
        wire.close([*volumes, *layers, *streams])
        self._set_limits()
        handover.write_request(self._request)
        self._identity = pidfd.process_identity(self.pid)
        self._worker.loop.watch(child.status.fileno(), self._hear)

    def _make_cgroup(self) -> None:
        """Makes the container's cgroup, or fits the one that was made ahead of time."""
        cgroup, all_devices = self._request["cgroup"], self._request["privileged"]
        devices = self._request["spec"]["linux"].get("allowedDevices", ())
        if self._worker.has_waiting(cgroup):
            sandbox.allow_more_devices(cgroup, all_devices=all_devices, devices=devices)
        else:
            sandbox.create_cgroup(cgroup, all_devices=all_devices, devices=devices)

    def _set_limits(self) -> None:
        """Before the program may run: sets the container's limits, and makes sure that it can be logged."""
        self._not_enforced = sandbox.set_limits(self._request["cgroup"], self._request["limits"])
        LogFile(self._request["logPath"]).close()

    def _open_volumes(self, received: list[int]) -> list[int]:
        """Puts the descriptors that the kubelet opened and those the worker opens (shared memory) in the order of the spec."""
        opened: list[int] = []
        left = list(received)
        for entry in self._request["spec"]["mounts"]:
            if entry["type"] == "bind":
                ours = entry["source"] == self._worker.request["shm"]
                opened.append(mounts.open_tree(entry["source"], recursive=False) if ours else left.pop(0))
        wire.close(left)
        return opened

    def _open_images(self) -> list[int]:
        """Opens the volumes that are images for a child whose user namespace could not."""
        place = self._request["rootfs"]["mountPoint"]
        entries = [entry for entry in self._request["spec"]["mounts"] if entry["type"] == "image"]
        return [podusers.open_image(entry["layers"], place, self._worker.user_namespace) for entry in entries]

    def _enter_user_namespace(self, volumes: list[int], streams: list[int]) -> int:
        """Makes what the container is given its user namespace's; returns its layers as a detached mount."""
        first_id, users = self._worker.request["firstUserId"], self._worker.user_namespace
        entries = [entry for entry in self._request["spec"]["mounts"] if entry["type"] == "bind"]
        for entry, volume in zip(entries, volumes, strict=True):
            if entry["source"] != self._worker.request["shm"]:  # a tmpfs of the pod's own: anybody may write
                podusers.shift(volume, users, entry["source"])
        podusers.give(streams, first_id)
        return podusers.open_layers(self._request["rootfs"], users, first_id)

    def _make_streams(self) -> list[int]:
        """Makes the FIFOs; returns the container's ends (stdin, stdout, stderr), -1 for /dev/null."""
        if self._tty:
            return []
        ends = [-1, -1, -1]
        if self._request["stdin"]:
            ends[0] = self._make_stdin()
        make_outputs(self._worker, self._id, self._run_dir)
        for number, name in ((1, "stdout"), (2, "stderr")):
            # Both directions: while the container itself could read, a moment without any keeper is no SIGPIPE for it.
            ends[number] = os.open(f"{self._run_dir}/{name}", os.O_RDWR | os.O_CLOEXEC)
        return ends

    def _make_stdin(self) -> int:
        """Makes the FIFO of stdin, of which only a write end is held: closing that one is the container's end of input."""
        path = f"{self._run_dir}/stdin"
        both = _open_fifo(path, PIPE_SIZE)
        reader = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._worker.hold(f"{self._id}/stdin", writer)
        wire.close([both, writer])
        return reader

    def _hear(self) -> None:
        assert self._child is not None
        try:
            if self._steps_follow:
                self._steps_follow = False
                self.child_steps, _ = wire.receive_bytes(self._child.status)
                return
            message, received = wire.receive(self._child.status)
        except wire.Closed:
            self._done()
            return
        self._steps_follow = message.get("stepsFollow", False)
        if "error" in message:
            self._error = message
        elif "terminal" in message:
            self._take_terminal(received[0])
        elif "ready" in message:
            self._ready = True
            self._let_go(message["user"])
            wire.send(self._child.status, {"go": True})

    def _take_terminal(self, master: int) -> None:
        """Holds the container's terminal, whose last close would send SIGHUP."""
        os.set_blocking(master, False)
        self._worker.hold(f"{self._id}/terminal", master)
        make_outputs(self._worker, self._id, self._run_dir, ["stdout.staging"])
        os.close(master)

    def _let_go(self, user: Request) -> None:
        """Notes who the first process is, and as whom it runs, right before it may run its program.

        Not earlier: until now it dies with us, and whoever takes over would take its death for the program's.
        """
        boot, pid, started = self._identity or pidfd.process_identity(self.pid)
        identity = {"boot_id": boot, "pid": pid, "start_time": started, "created_at": time.time_ns(), "user": user}
        atomic.write_json(f"{self._run_dir}/process.json", identity)

    def _done(self) -> None:
        """The status socket is closed: the program runs, or the first process has ended."""
        if not self._ready and self._error is None:
            self._error = {"error": KILLED, "reason": "StartError"}
        if self._error is not None:
            self.failed(self._error["error"], self._error["reason"])
        else:
            self.started_at = time.time_ns()
            executed = {"pid": self.pid, "started_at": self.started_at, "executed_ns": time.monotonic_ns()}
            self.answer = {**executed, "not_enforced": self._not_enforced}
        self._worker.loop.stop()

    def failed(self, error: str, reason: str) -> None:
        """Its program does not run, and whatever was started of it has ended or is about to."""
        self.answer = {"error": error, "reason": reason}

    def adopt(self, identity: Request) -> Request:
        """Finds again what runs since before an earlier keeper died: streams as the launcher held them or by name, the process.

        Returns the container as the keeper takes it over.
        """
        handover.write_request(self._request)
        if not self._tty:
            make_outputs(self._worker, self._id, self._run_dir)
        elif f"{self._id}/terminal" in self._worker.held:
            make_outputs(self._worker, self._id, self._run_dir, ["stdout.staging"])
        if f"{self._id}/process" not in self._worker.held:
            try:
                process = pidfd.open_process(identity["pid"], identity["start_time"], identity["boot_id"])
                self._worker.hold(f"{self._id}/process", process)
                os.close(process)
            except ProcessLookupError:
                pass  # it has ended, and nobody can say how
        started_at = self._request.get("startedAt") or identity["created_at"]
        return handover.summary(self._request, identity["pid"], started_at)


def make_outputs(worker: Worker, container_id: str, run_dir: str, names: Sequence[str] = OUTPUTS) -> None:
    """Makes a container's FIFOs that are not held yet, so that keeper and launcher hold them for both directions.

    Both directions: then neither the death of the keeper nor an early close by the container ends the stream.
    """
    made = {}
    for name in names:
        if f"{container_id}/{name}" not in worker.held:
            size = STAGING_SIZE if name.endswith(".staging") else PIPE_SIZE
            made[f"{container_id}/{name}"] = _open_fifo(f"{run_dir}/{name}", size)
    worker.hold_all(made)
    wire.close(made.values())


def _open_fifo(path: str, size: int) -> int:
    if not os.path.lexists(path):
        os.mkfifo(path, 0o600)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fds.set_pipe_size(fd, size)
    return fd
