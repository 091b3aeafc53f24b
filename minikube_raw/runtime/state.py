"""What the kubelet's side of the runtime shares among its verbs: the known pods, their records, threads and background tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from minikube_raw.linux import process

from . import pods
from .cri import CREATE_ERROR, RuntimeServiceError
from .layout import Layout
from .pods import Container, Sandbox
from .records import ContainerRecord, ExitRecord, SandboxRecord, Shelf

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_THREADS = 16


class NodeState:
    """One node's sandboxes and containers in memory and on disk. Everything here runs on the event loop's thread."""

    def __init__(self, layout: Layout, cgroup_root: str) -> None:
        self.layout = layout
        self.cgroup_root = cgroup_root.strip("/")
        self.sandbox_records = Shelf(layout.sandbox_records, SandboxRecord)
        self.container_records = Shelf(layout.container_records, ContainerRecord)
        self.exit_records = Shelf(layout.exit_records, ExitRecord, shared=True)  # keepers write them
        self.sandboxes: dict[str, Sandbox] = {}
        self._sandboxes_of_pods: dict[str, dict[str, Sandbox]] = {}  # by the pod's uid, then by their own ids
        self.containers: dict[str, Container] = {}
        self.warnings: list[str] = []
        self.tell: Callable[[str, str], None] = lambda reason, message: None
        self._told: set[str] = set()
        self.look_again: Callable[[str], None] = lambda uid: None
        self._threads = ThreadPoolExecutor(_THREADS, "runtime", process.go_with_others)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def load(self) -> None:
        """Reads all records; those that cannot be read are set aside with a warning."""
        sandboxes, problems = self.sandbox_records.load()
        containers, more = self.container_records.load()
        exits, yet_more = self.exit_records.load()
        for problem in (*problems, *more, *yet_more):
            self.warn(problem)
        for record in sandboxes.values():
            self.know_sandbox(record)
        for container_record in containers.values():
            self.load_container(container_record, exits.get(container_record.id))

    def know_sandbox(self, record: SandboxRecord) -> Sandbox:
        """Takes a sandbox of a record into memory."""
        sandbox = self.sandboxes[record.id] = Sandbox(record)
        self._sandboxes_of_pods.setdefault(record.config.uid, {})[record.id] = sandbox
        return sandbox

    def forget_sandbox(self, sandbox: Sandbox) -> None:
        """Undoes know_sandbox(); twice is fine."""
        uid = sandbox.record.config.uid
        of_pod = self._sandboxes_of_pods.get(uid, {})
        of_pod.pop(sandbox.id, None)
        if not of_pod:
            self._sandboxes_of_pods.pop(uid, None)
        self.sandboxes.pop(sandbox.id, None)

    def sandboxes_of(self, uid: str) -> list[Sandbox]:
        """Returns a pod's sandboxes. A start asks three times, so nothing is looked at that is another pod's."""
        return list(self._sandboxes_of_pods.get(uid, {}).values())

    def load_container(self, record: ContainerRecord, ended: ExitRecord | None) -> None:
        """know_container() of one on record; without a sandbox, or if it could not be made, it is left to the sweep."""
        if record.sandbox_id in self.sandboxes and (ended is None or ended.reason != CREATE_ERROR):
            self.know_container(record, ended)

    def know_container(self, record: ContainerRecord, ended: ExitRecord | None = None) -> Container:
        """Takes a container of a sandbox that is known into memory."""
        sandbox = self.sandboxes[record.sandbox_id]
        container = Container(record, pods.log_path(record, sandbox.record.config.log_directory))
        container.identity = pods.read_identity(self.layout, record.id)
        if ended is not None:
            container.finish(ended)
        container.hold_process()
        self.containers[record.id] = sandbox.containers[record.id] = container
        return container

    def sandbox(self, sandbox_id: str) -> Sandbox:
        """Returns a sandbox; RuntimeServiceError NotFound."""
        try:
            return self.sandboxes[sandbox_id]
        except KeyError:
            raise RuntimeServiceError("NotFound", f"no sandbox {sandbox_id}") from None

    def container(self, container_id: str) -> tuple[Sandbox, Container]:
        """Returns a container with its sandbox; RuntimeServiceError NotFound."""
        try:
            container = self.containers[container_id]
            return self.sandboxes[container.record.sandbox_id], container
        except KeyError:
            raise RuntimeServiceError("NotFound", f"no container {container_id}") from None

    def note_started(self, container: Container, started_at: int) -> None:
        """Records that a container's program runs."""
        if not container.record.started_at:
            container.record.started_at = container.record.request["startedAt"] = started_at
            container.identity = pods.read_identity(self.layout, container.id)
            container.hold_process()
            self.container_records.write(container.id, container.record)

    def finish(self, sandbox: Sandbox, container: Container, ended: ExitRecord) -> None:
        """Takes note that a container has ended and tells whoever follows the pod."""
        if container.exit is None:
            taken = container.finish(ended)
            if taken is not ended or not taken.known:  # else the keeper has written it
                self.exit_records.write(container.id, taken)
            self._tell_of_children(sandbox, container, taken)
            self.look_again(sandbox.record.config.uid)

    def _tell_of_children(self, sandbox: Sandbox, container: Container, ended: ExitRecord) -> None:
        """A container that lost other processes than its first to the kernel's want of memory did not end OOMKilled."""
        if ended.oom_kills and not ended.oom_killed:
            config, name = sandbox.record.config, container.record.config.name
            self.tell(
                "OOMKilling",
                f"memory ran out in container {name} of pod {config.namespace}/{config.name}: "
                f"the kernel killed {ended.oom_kills} of its processes, not the first",
            )

    def warn(self, sentence: str) -> None:
        """Logs, keeps and tells a problem that stops nobody."""
        log.warning("%s", sentence)
        self.warnings.append(sentence)
        self.tell("RuntimeProblem", sentence)

    def not_enforced(self, limits: Iterable[str], why: str = "this host has no counterpart for it") -> None:
        """Tells once for each limit that this host cannot enforce it."""
        for limit in limits:
            if limit not in self._told:
                self._told.add(limit)
                message = f"{limit} is not enforced: {why}"
                log.warning("%s", message)
                self.tell("LimitNotEnforced", message)

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """Runs what may block (disk, CNI, a cgroup that will not die) outside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts work that nobody waits for; settled() does. After close() nothing of it is done."""
        task = asyncio.get_running_loop().create_task(work)
        if self._closed:
            task.cancel()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settled(self) -> None:
        """Waits until all background work is done."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Ends background work and connections; pods run on."""
        while self._tasks:  # work that is called off may have begun more
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._closed = True
        for sandbox in self.sandboxes.values():
            if sandbox.peer is not None:
                peer, sandbox.peer = sandbox.peer, None
                peer.close()
        self._threads.shutdown(wait=False)
