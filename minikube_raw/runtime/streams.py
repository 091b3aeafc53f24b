"""exec, exec_sync, attach and port_forward on the kubelet's side: descriptors that come from keepers, and sockets in pods."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from contextlib import suppress

from . import dialling, spec, wire
from .cri import ExecResult, RuntimeServiceError
from .keepers import Keepers
from .peers import refuse_errors
from .pods import Container
from .sessions import Session
from .state import NodeState

EXEC_START_TIMEOUT = 30.0
_READ_SIZE = 1 << 16
_MOST_OUTPUT = 16 << 20  # what exec_sync keeps of each stream, as containerd does


class Streams:
    """The streaming verbs of one node."""

    def __init__(self, state: NodeState, keepers: Keepers) -> None:
        self._state, self._keepers = state, keepers

    async def exec(self, container_id: str, command: list[str], *, tty: bool = False, stdin: bool = False) -> Session:
        """Exec."""
        sandbox, container = self._state.container(container_id)
        if not container.running:
            raise RuntimeServiceError("NotRunning", f"container {container_id} is not running")
        user = container.identity.user if container.identity is not None else None
        process = spec.exec_process(container.record.request["spec"]["process"], command, tty=tty, user=user)
        message = {"op": "exec", "container": container_id, "process": process, "stdin": stdin}
        answer, descriptors = await self._keepers.ask(sandbox, message, timeout=EXEC_START_TIMEOUT)
        if "error" in answer:
            wire.close(descriptors)
            # containerd's and runc's words; the id is one they give to each exec.
            started = f'failed to start exec "{secrets.token_hex(32)}": OCI runtime exec failed: exec failed'
            text = (
                f"failed to exec in container: {started}: unable to start container process: {answer['error']}: unknown"
            )
            raise RuntimeServiceError(answer.get("reason", "ExecError"), text)

        async def kill() -> None:
            await self._keepers.ask(sandbox, {"op": "kill exec", "exec": answer["exec"]})

        return Session(descriptors, sandbox.exec_ended(answer["exec"]), tty=tty, stdin=stdin, kill=kill)

    async def exec_sync(self, container_id: str, command: list[str], timeout: float = 0) -> ExecResult:
        """ExecSync. What has not ended after `timeout` seconds (0 is no limit) is killed, children included: TimeoutError."""
        session = await self.exec(container_id, command)
        try:
            async with asyncio.timeout(timeout or None):
                stdout, stderr = await asyncio.gather(read_all(session.stdout), read_all(session.stderr))
                return ExecResult(stdout, stderr, await session.wait())
        except (TimeoutError, asyncio.CancelledError):
            self._state.background(_kill(session))
            raise
        finally:
            session.close()

    async def attach(self, container_id: str) -> Session:
        """Attach."""
        sandbox, container = self._state.container(container_id)
        answer, descriptors = await self._keepers.ask(sandbox, {"op": "attach", "container": container_id})
        refuse_errors(answer)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._state.background(_resolve_at_end(container, ended))

        async def resize(width: int, height: int) -> None:
            size = {"op": "resize", "container": container_id, "width": width, "height": height}
            await self._keepers.ask(sandbox, size)

        terminal = bool(answer["terminal"])
        stdin = bool(answer["stdin"])
        return Session(descriptors, ended, tty=terminal, stdin=stdin, resize=resize if terminal else None)

    async def port_forward(self, sandbox_id: str, port: int) -> socket.socket:
        """PortForward, for one connection."""
        sandbox = self._state.sandboxes.get(sandbox_id)
        if sandbox is None:
            raise RuntimeServiceError("NotFound", f'failed to find sandbox "{sandbox_id}" in store: not found')
        return await dialling.dial(sandbox_id, sandbox.record.netns, port)

    async def reopen_log(self, container_id: str) -> None:
        """ReopenContainerLog: the kubelet has renamed the file, output goes to a new one."""
        sandbox, _ = self._state.container(container_id)
        answer, _ = await self._keepers.ask(sandbox, {"op": "reopen_log", "container": container_id})
        refuse_errors(answer)


async def _kill(session: Session) -> None:
    with suppress(RuntimeServiceError):  # without its keeper it goes with its container
        await session.kill()


async def _resolve_at_end(container: Container, ended: asyncio.Future[int]) -> None:
    await container.ended.wait()
    if not ended.done() and container.exit is not None:
        ended.set_result(container.exit.exit_code)


async def read_all(fd: int | None) -> bytes:
    """Reads a non-blocking pipe to its end; beyond 16 MiB the rest is read and dropped."""
    chunks: list[bytes] = []
    size = 0
    while fd is not None:
        try:
            chunk = os.read(fd, _READ_SIZE)
        except BlockingIOError:
            await readable(fd)
            continue
        if not chunk:
            break
        if size < _MOST_OUTPUT:
            chunks.append(chunk)
            size += len(chunk)
    return b"".join(chunks)


async def readable(fd: int) -> None:
    """Waits until a descriptor is readable or at its end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
