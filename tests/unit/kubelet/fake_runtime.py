"""A RuntimeService by hand: sandboxes and containers are entries in dictionaries, and tests end them at will."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import msgspec

from minikube_raw.runtime import cri

START = 1_700_000_000


class FakeRuntime:
    """Keeps what it was asked for in `calls`; `fail` makes a verb raise once per entry."""

    def __init__(self, now: Callable[[], float] = lambda: START) -> None:
        self.now = now
        self.sandboxes: dict[str, cri.PodSandboxStatus] = {}
        self.containers: dict[str, cri.ContainerStatus] = {}
        self.configs: dict[str, cri.ContainerConfig] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.execs: list[tuple[str, ...]] = []
        self.fail: dict[str, list[cri.RuntimeServiceError]] = {}
        self.ignores_term: set[str] = set()
        self.answers: dict[
            str, list[cri.ExecResult | Exception] | asyncio.Event
        ] = {}  # to exec_sync, by the first word
        self.changed = asyncio.Event()
        self._look_again: Callable[[str], None] = lambda uid: None
        self._ids = itertools.count(1)
        self._killed: dict[str, asyncio.Event] = {}

    async def run_pod_sandbox(self, config: cri.PodSandboxConfig) -> str:
        self._called("run_pod_sandbox", config.uid, config.attempt)
        sandbox_id = f"sandbox{next(self._ids)}"
        ip = f"10.244.0.{len(self.sandboxes) + 2}"
        self.sandboxes[sandbox_id] = cri.PodSandboxStatus(
            id=sandbox_id, config=config, state=cri.SandboxState.READY, created_at=self._ns(), ips=(ip,)
        )
        return sandbox_id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        self._called("stop_pod_sandbox", sandbox_id)
        for each in [each for each in self.containers.values() if each.sandbox_id == sandbox_id]:
            if each.state is cri.ContainerState.RUNNING:
                self.exit(each.id, 137)
        if sandbox_id in self.sandboxes:
            self.lose_sandbox(sandbox_id)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        self._called("remove_pod_sandbox", sandbox_id)
        self.sandboxes.pop(sandbox_id, None)
        self.containers = {name: each for name, each in self.containers.items() if each.sandbox_id != sandbox_id}

    async def create_container(self, sandbox_id: str, config: cri.ContainerConfig) -> str:
        self._called("create_container", config.name, config.attempt)
        container_id = f"container{next(self._ids)}"
        self.configs[container_id] = config
        self.containers[container_id] = cri.ContainerStatus(
            id=container_id,
            sandbox_id=sandbox_id,
            name=config.name,
            attempt=config.attempt,
            image=config.image,
            image_name=config.image_name,
            state=cri.ContainerState.CREATED,
            created_at=self._ns(),
            labels=config.labels,
            annotations=config.annotations,
            resources=config.resources,
        )
        return container_id

    async def start_container(self, container_id: str) -> None:
        try:
            self._called("start_container", self.containers[container_id].name)
        except cri.RuntimeServiceError as error:
            state = {"state": cri.ContainerState.EXITED, "exit_code": 128, "finished_at": self._ns()}
            self._change(container_id, **state, reason=error.reason, message=str(error))
            raise
        self._change(container_id, state=cri.ContainerState.RUNNING, started_at=self._ns(), pid=1)

    async def stop_container(self, container_id: str, grace: float) -> None:
        status = self.containers[container_id]
        self._called("stop_container", status.name, grace)
        if status.name in self.ignores_term and grace > 2:
            await self._killed.setdefault(container_id, asyncio.Event()).wait()
            return
        self.exit(container_id, 137 if status.name in self.ignores_term else 0)

    async def remove_container(self, container_id: str) -> None:
        self.containers.pop(container_id, None)

    async def list_pod_sandboxes(self, uid: str | None = None) -> list[cri.PodSandboxStatus]:
        return [each for each in self.sandboxes.values() if uid in (None, each.config.uid)]

    async def list_containers(self, sandbox_id: str | None = None) -> list[cri.ContainerStatus]:
        return [each for each in self.containers.values() if sandbox_id in (None, each.sandbox_id)]

    async def container_status(self, container_id: str) -> cri.ContainerStatus | None:
        return self.containers.get(container_id)

    async def reopen_container_log(self, container_id: str) -> None:
        self._called("reopen_container_log", container_id)

    async def port_forward(self, sandbox_id: str, port: int) -> Any:
        raise NotImplementedError

    async def checkpoint_container(self, container_id: str, location: str, timeout: float = 0) -> None:
        self._called("checkpoint_container", container_id, location, timeout)

    async def exec_sync(self, container_id: str, command: list[str], timeout: float = 0) -> cri.ExecResult:
        """What `answers` has for the command: the next result (the last one again and again), or success at an event."""
        self.execs.append((container_id, *command))
        answer = self.answers.get(command[0])
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        elif answer:
            result = answer.pop(0) if len(answer) > 1 else answer[0]
            if isinstance(result, Exception):
                raise result
            return result
        return cri.ExecResult(b"", b"", 0)

    async def exec(self, container_id: str, command: list[str], *, tty: bool = False, stdin: bool = False) -> Any:
        raise NotImplementedError

    async def attach(self, container_id: str) -> Any:
        raise NotImplementedError

    async def removals_done(self, seconds: float) -> None:
        self._called("removals_done")

    def writable_layer(self, container_id: str) -> str:
        return f"/layers/{container_id}"

    async def update_container_resources(self, container_id: str, resources: cri.LinuxContainerResources) -> None:
        self._called("update_container_resources", container_id)
        said = {name: value for name, value in msgspec.structs.asdict(resources).items() if value is not None}
        self._change(container_id, resources=msgspec.structs.replace(self.containers[container_id].resources, **said))

    async def update_pod_sandbox_resources(self, sandbox_id: str, resources: cri.LinuxContainerResources) -> None:
        self._called("update_pod_sandbox_resources", sandbox_id)

    def on_warning(self, tell: Callable[[str, str], None]) -> None:
        self.tell = tell

    def on_change(self, look_again: Callable[[str], None]) -> None:
        self._look_again = look_again

    # -- what tests do to it -----------------------------------------------------------------------------------------

    def named(self, name: str) -> cri.ContainerStatus:
        """The newest attempt of a container."""
        return max((each for each in self.containers.values() if each.name == name), key=lambda each: each.attempt)

    def exit(self, container_id: str, code: int, reason: str = "") -> None:
        """End a container, as if its process had."""
        if self.containers[container_id].state is not cri.ContainerState.RUNNING:
            return
        state = {"state": cri.ContainerState.EXITED, "exit_code": code, "finished_at": self._ns(), "reason": reason}
        self._change(container_id, **state)
        self._killed.setdefault(container_id, asyncio.Event()).set()
        self._tell(self.containers[container_id].sandbox_id)

    def lose_sandbox(self, sandbox_id: str) -> None:
        """The sandbox stops being one that containers can run in."""
        sandbox = self.sandboxes[sandbox_id]
        self.sandboxes[sandbox_id] = msgspec.structs.replace(sandbox, state=cri.SandboxState.NOTREADY)
        self._tell(sandbox_id)

    def verbs(self) -> list[str]:
        return [call[0] for call in self.calls]

    def _tell(self, sandbox_id: str) -> None:
        self._look_again(self.sandboxes[sandbox_id].config.uid)

    def _called(self, verb: str, *arguments: Any) -> None:
        self.calls.append((verb, *arguments))
        self.changed.set()
        if self.fail.get(verb):
            raise self.fail[verb].pop(0)

    def _change(self, container_id: str, **fields: Any) -> None:
        self.containers[container_id] = msgspec.structs.replace(self.containers[container_id], **fields)
        self.changed.set()

    def _ns(self) -> int:
        return int(self.now() * 1e9)
