"""What the kubelet's side of the runtime holds in memory of each sandbox and container, made of records and keepers' words."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from minikube_raw.linux import pidfd

from . import atomic
from .cri import ContainerState, ContainerStatus, PodSandboxStatus, SandboxState
from .layout import Layout
from .peers import Peer
from .records import ContainerRecord, ExitRecord, Identity, SandboxRecord
from .trace import PodTrace

Result = TypeVar("Result")


class Sandbox:
    """One pod sandbox as this kubelet knows it."""

    def __init__(self, record: SandboxRecord) -> None:
        self.record = record
        self.lock = asyncio.Lock()  # one verb at a time changes a sandbox
        self.peer: Peer | None = None
        self.version = 0  # of the protocol that its keeper speaks (wire.VERSION)
        self.replacing = False  # its keeper has died, another is taking over; containers run on meanwhile
        self.pause_ended = False  # PID 1 of the shared PID namespace: nothing can be started there any more
        self.containers: dict[str, Container] = {}
        self.execs: dict[int, asyncio.Future[int]] = {}
        self.trace: PodTrace | None = None
        self.teardown: asyncio.Task[None] | None = None
        self._first_used = record.ready

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    def next_container_id(self) -> str:
        """Returns an id for a new container: the first is the one the keeper has prepared for, once."""
        if self._first_used or not self.record.first_container:
            return secrets.token_hex(32)
        self._first_used = True
        return self.record.first_container

    def exec_ended(self, number: int) -> asyncio.Future[int]:
        """Returns the future exit code of an exec by its keeper's number, whoever hears of it first; kept until it is known."""
        if number not in self.execs:
            self.execs[number] = asyncio.get_running_loop().create_future()
            self.execs[number].add_done_callback(lambda _: self._forget_exec(number))
        return self.execs[number]

    def _forget_exec(self, number: int) -> None:
        # later than the turn in which both the answer to exec and its end may have come
        asyncio.get_running_loop().call_later(60, self.execs.pop, number, None)

    def recorded(self, function: Callable[[], Result]) -> Result:
        """Runs a function with its steps going into the pod's trace, if it has one."""
        return function() if self.trace is None else self.trace.record(function)

    def status(self) -> PodSandboxStatus:
        """Its CRI status: READY needs a keeper, or the prospect of one: without it the pod would be made anew."""
        record = self.record
        kept = self.replacing or (self.peer is not None and not self.peer.closed)
        ready = record.ready and not record.stopped and kept and not self.pause_ended
        state = SandboxState.READY if ready else SandboxState.NOTREADY
        return PodSandboxStatus(record.id, record.config, state, record.created_at, record.ips, record.netns)


class Container:
    """One container as this kubelet knows it."""

    def __init__(self, record: ContainerRecord, log_path: str) -> None:
        self.record = record
        self.log_path = log_path
        self.exit: ExitRecord | None = None
        self.identity: Identity | None = None
        self.ended = asyncio.Event()
        self.root = -1  # its root file system as a detached mount, if that was made ahead of its start
        self._process = -1

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.exit is None and self.record.started_at > 0

    def take_root(self) -> int:
        """Returns `root`, which is the caller's from now on."""
        root, self.root = self.root, -1
        return root

    def hold_process(self) -> None:
        """Opens its first process for as long as it runs: should nobody be left to see how it ends, the kernel tells us."""
        if self._process < 0 and self.exit is None and self.identity is not None:
            with suppress(OSError):
                self._process = self.open_pidfd()

    def finish(self, record: ExitRecord) -> ExitRecord:
        """Takes note of its end and returns it, with the code that the kernel knows where the record does not."""
        status = None
        if self._process >= 0:
            status = None if record.known else pidfd.exit_info(self._process)
            os.close(self._process)
            self._process = -1
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            record = msgspec.structs.replace(record, exit_code=code if code >= 0 else 128 - code, known=True)
        self.exit = record
        self.ended.set()
        return record

    def open_pidfd(self) -> int:
        """Opens its first process, if it is still that one; ProcessLookupError otherwise."""
        if self.identity is None:
            raise ProcessLookupError(f"container {self.id} has no process")
        return pidfd.open_process(self.identity.pid, self.identity.start_time, self.identity.boot_id)

    def is_alive(self) -> bool:
        """Whether its first process runs."""
        return self.identity is not None and is_alive(self.identity)

    def status(self) -> ContainerStatus:
        """Its CRI status."""
        record, config, ended = self.record, self.record.config, self.exit
        reason, message = ("", "") if ended is None else _reason(ended)
        return ContainerStatus(
            id=record.id,
            sandbox_id=record.sandbox_id,
            name=config.name,
            attempt=config.attempt,
            image=config.image,
            image_name=config.image_name,
            state=self._state(),
            created_at=record.created_at,
            started_at=record.started_at if ended is None else ended.started_at,
            finished_at=0 if ended is None else ended.finished_at,
            exit_code=0 if ended is None else ended.exit_code,
            reason=reason,
            message=message,
            log_path=self.log_path,
            pid=self.identity.pid if self.running and self.identity else 0,
            labels=config.labels,
            annotations=config.annotations,
            resources=config.resources,
            user=self.identity.user if self.identity else None,
        )

    def _state(self) -> ContainerState:
        if self.exit is not None:
            return ContainerState.EXITED
        return ContainerState.RUNNING if self.record.started_at else ContainerState.CREATED


def _reason(ended: ExitRecord) -> tuple[str, str]:
    """Returns the reason Kubernetes shows for an end, with its message."""
    if ended.reason:
        return ended.reason, ended.message
    if not ended.known:
        return "ContainerStatusUnknown", "The container could not be located when the pod was terminated"
    if ended.oom_killed:
        return "OOMKilled", ""
    return ("Error" if ended.exit_code else "Completed"), ""


def read_identity(layout: Layout, container_id: str) -> Identity | None:
    """Returns what a container's keeper wrote of its first process; None if it never had one."""
    try:
        found = atomic.read_json(f"{layout.container(container_id)}/process.json")
        return None if found is None else msgspec.convert(found, Identity)
    except (ValueError, OSError, msgspec.ValidationError):
        return None


def is_alive(identity: Identity) -> bool:
    """Says whether a recorded process runs."""
    try:
        process = pidfd.open_process(identity.pid, identity.start_time, identity.boot_id)
    except OSError:
        return False
    try:
        return not pidfd.has_ended(process)
    finally:
        os.close(process)


def log_path(record: ContainerRecord, directory: str) -> str:
    """Returns the absolute path of a container's log; without one the output goes nowhere."""
    if not record.config.log_path or not directory:
        return os.devnull
    return os.path.join(directory, record.config.log_path)
