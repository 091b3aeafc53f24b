"""exec and attach between a client's channels and a session's descriptors; output is read only as fast as the client takes it.

Which protocol carries the channels is `minikube_raw.streaming`'s; the API server always comes with v5.channel.k8s.io.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

import msgspec

from minikube_raw.runtime.cri import ExecSession
from minikube_raw.streaming.channels import CLOSE, RESIZE, STDERR, STDIN, STDOUT, Channels

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


async def stream(channels: Channels, session: ExecSession, *, tells_exit: bool = True) -> None:
    """Carry a session's streams until its process has ended or the client has left; then close both.

    Without `tells_exit` every end is a success, as attach has it: kubectl asks the pod how its container ended.
    """
    # stderr first: a client that has seen the end of an archive leaves, and the error was written before that.
    outputs = {STDERR: session.stderr, STDOUT: session.stdout}
    pumps = [_Pump(channels, channel, fd) for channel, fd in outputs.items() if fd is not None]
    client = asyncio.create_task(_receive(channels, session))
    process = asyncio.create_task(session.wait())
    tasks = [*(pump.task for pump in pumps), client, process]
    try:
        await asyncio.wait((client, process), return_when=asyncio.FIRST_COMPLETED)
        if process.done():
            await _drain(pumps)
            # Two readers of one socket wait for each other: the closing handshake is finish()'s alone.
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)
            await channels.finish(exit_status(process.result()) if tells_exit else success())
    finally:
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            session.close()  # also when aiohttp cancels us meanwhile, because the client has left


class _Pump:
    """Copies one output to the client; `sending` says that it waits for the client, not for output."""

    def __init__(self, channels: Channels, channel: int, fd: int) -> None:
        self.sending = False
        self.task = asyncio.create_task(self._run(channels, channel, fd))

    async def _run(self, channels: Channels, channel: int, fd: int) -> None:
        while data := await read_some(fd):
            self.sending = True
            await channels.send(channel, data)
            self.sending = False


async def _drain(pumps: Sequence[_Pump]) -> None:
    """Wait until what the process wrote is sent, however slow the client; a grandchild may hold the output open for ever."""
    while pending := [pump.task for pump in pumps if not pump.task.done()]:
        await asyncio.wait(pending, timeout=_DRAIN_SECONDS)
        if not any(pump.sending and not pump.task.done() for pump in pumps):
            return


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


async def _receive(channels: Channels, session: ExecSession) -> None:
    """Take stdin and terminal sizes until the client leaves."""
    stdin_open = session.stdin is not None
    while (message := await channels.receive()) is not None:
        channel, data = message
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
