"""exec and attach over WebSocket: Kubernetes' channel protocols v5.channel.k8s.io and v4.channel.k8s.io.

The first byte of each binary message names a channel; output is read only as fast as the client takes it. This is the one
form in which the API server talks to a kubelet, whatever its own clients speak.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import msgspec
from aiohttp import WSMsgType, web

from minikube_raw.runtime.cri import ExecSession

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK = 32 * 1024
_DRAIN_SECONDS = 1.0


class TerminalSize(msgspec.Struct, frozen=True, rename="pascal"):
    """A message of the resize channel, in characters."""

    width: int
    height: int


def success() -> bytes:
    """The status of a command that ended with 0."""
    return msgspec.json.encode({"metadata": {}, "status": "Success"})


def exit_status(code: int) -> bytes:
    """The status a client reads the exit code from (pkg/kubelet: remotecommand NonZeroExitCodeReason)."""
    if code == 0:
        return success()
    message = f"command terminated with non-zero exit code: exit status {code}"
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return _failure("NonZeroExitCode", message, {"causes": causes})


def internal_error(text: str) -> bytes:
    """The status of a command that could not be run."""
    message = f"Internal error occurred: {text}"
    return _failure("InternalError", message, {"causes": [{"message": text}]}, code=500)


def _failure(reason: str, message: str, details: object, **more: object) -> bytes:
    status = {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "details": details}
    return msgspec.json.encode(status | more)


async def send_status(socket: web.WebSocketResponse, status: bytes) -> None:
    """Say how it ended and close."""
    with contextlib.suppress(ConnectionError):
        await socket.send_bytes(bytes([ERROR]) + status)
        await socket.close()


async def stream(socket: web.WebSocketResponse, session: ExecSession) -> None:
    """Carry a session's streams until its process has ended or the client has left; then close both."""
    await socket.send_bytes(bytes([STDOUT]))  # an empty message tells the client that the streams are up
    outputs = {STDOUT: session.stdout, STDERR: session.stderr}
    pumps = [asyncio.create_task(_pump(socket, channel, fd)) for channel, fd in outputs.items() if fd is not None]
    client = asyncio.create_task(_receive(socket, session))
    process = asyncio.create_task(session.wait())
    tasks = [*pumps, client, process]
    try:
        await asyncio.wait((client, process), return_when=asyncio.FIRST_COMPLETED)
        if process.done():
            if pumps:
                # A grandchild may hold the output open for ever; what the process wrote is there within a moment.
                await asyncio.wait(pumps, timeout=_DRAIN_SECONDS)
            # Two readers of one socket wait for each other: the closing handshake is close()'s alone.
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)
            await send_status(socket, exit_status(process.result()))
    finally:
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            session.close()  # also when aiohttp cancels us meanwhile, because the client has left


async def _pump(socket: web.WebSocketResponse, channel: int, fd: int) -> None:
    prefix = bytes([channel])
    while data := await read_some(fd):
        await socket.send_bytes(prefix + data)


async def read_some(fd: int) -> bytes:
    """Read what a non-blocking descriptor has, waiting for it; b"" at the end (EIO: the last holder of a terminal left)."""
    while True:
        try:
            return os.read(fd, _CHUNK)
        except BlockingIOError:
            await _ready(fd, writable=False)
        except OSError:
            return b""


async def write_all(fd: int, data: bytes) -> None:
    """Write everything to a non-blocking descriptor. Raises BrokenPipeError when nobody reads it any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _ready(fd, writable=True)


async def _ready(fd: int, *, writable: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    add, remove = (loop.add_writer, loop.remove_writer) if writable else (loop.add_reader, loop.remove_reader)
    # A terminal is one descriptor for both directions; a duplicate lets each wait on its own.
    own = os.dup(fd)
    add(own, ready.set)
    try:
        await ready.wait()
    finally:
        remove(own)
        os.close(own)


async def _receive(socket: web.WebSocketResponse, session: ExecSession) -> None:
    """Take stdin and terminal sizes until the client leaves."""
    stdin_open = session.stdin is not None
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == STDIN and stdin_open and session.stdin is not None:
            stdin_open = await _feed(session.stdin, data)
        elif channel == RESIZE:
            with contextlib.suppress(msgspec.MsgspecError):
                size = msgspec.json.decode(data, type=TerminalSize)
                await session.resize(size.width, size.height)
        elif channel == CLOSE and data[:1] == bytes([STDIN]) and stdin_open:
            stdin_open = False
            session.close_stdin()


async def _feed(fd: int, data: bytes) -> bool:
    try:
        await write_all(fd, data)
    except OSError:
        return False
    return True
