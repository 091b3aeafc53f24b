"""The client's side of exec and attach: our terminal and streams over Kubernetes' v5 channel protocol to an agent's unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import tty as terminal
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec

from minikube_raw.linux.socket_paths import short_name

_PROTOCOLS = ("v5.channel.k8s.io",)
_CHUNK = 32_768
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255


class ExecFailed(Exception):
    """The command was not run."""


class Refused(ExecFailed):
    """The agent did not take the call."""


class Call(msgspec.Struct, frozen=True):
    """What is asked of the agent: /exec or /attach of a container, and which streams."""

    path: str
    command: tuple[str, ...] = ()
    stdin: bool = False
    tty: bool = False

    @property
    def query(self) -> list[tuple[str, str]]:
        """The call as a query string's pairs."""
        asked = [
            ("input", self.stdin),
            ("tty", self.tty),
            ("output", True),
            ("error", not self.tty),
            ("exitCode", True),
        ]
        return [("command", word) for word in self.command] + [(name, "1") for name, wanted in asked if wanted]


def run(socket: str, call: Call) -> int:
    """Carry the streams until the process ends; return its exit code. Raises ExecFailed."""
    call = msgspec.structs.replace(call, tty=call.tty and sys.stdin.isatty())
    with _raw_terminal(call.tty and call.stdin):
        return asyncio.run(_run(socket, call))


async def _run(socket: str, call: Call) -> int:
    try:
        with short_name(socket) as name:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(name)) as session,
                session.ws_connect(
                    f"http://agent{call.path}", params=call.query, protocols=_PROTOCOLS, max_msg_size=0
                ) as ws,
            ):
                return await _talk(ws, stdin=call.stdin, tty=call.tty)
    except aiohttp.WSServerHandshakeError as error:
        raise Refused(f"{call.path[1:].replace('/', ' ', 1)} was refused with status {error.status}") from error
    except aiohttp.ClientConnectionError as error:
        raise ExecFailed(f"no agent answers on {socket}: {error}") from error


async def _talk(ws: aiohttp.ClientWebSocketResponse, *, stdin: bool, tty: bool) -> int:
    loop = asyncio.get_running_loop()
    feeding = loop.create_task(_feed(ws)) if stdin else None
    if tty:
        await _resize(ws)
        loop.add_signal_handler(signal.SIGWINCH, lambda: loop.create_task(_resize(ws)))
    try:
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == _ERROR:
                return _exit_code(msgspec.json.decode(data))
            _write(1 if channel == _STDOUT else 2, data)
    finally:
        if feeding is not None:
            feeding.cancel()
    raise ExecFailed("the agent went away while the command ran")


def _exit_code(status: dict[str, Any]) -> int:
    if status.get("status") == "Success":
        return 0
    causes = status.get("details", {}).get("causes", ())
    code = next((cause["message"] for cause in causes if cause.get("reason") == "ExitCode"), None)
    if code is None:
        raise ExecFailed(str(status.get("message", "the command was not run")))
    return int(code)


async def _feed(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Pass our input on; its end is the command's."""
    while data := await _read_input():
        await ws.send_bytes(bytes([_STDIN]) + data)
    await ws.send_bytes(bytes([_CLOSE, _STDIN]))


async def _read_input() -> bytes:
    """What stands in our input, waiting for it. No thread: a read that nobody types into would keep us from leaving."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(0, readable.set)
    except PermissionError:  # a regular file is always readable, and epoll refuses it
        return os.read(0, _CHUNK)
    try:
        await readable.wait()
        return os.read(0, _CHUNK)
    finally:
        loop.remove_reader(0)


async def _resize(ws: aiohttp.ClientWebSocketResponse) -> None:
    columns, lines = shutil.get_terminal_size()
    await ws.send_bytes(bytes([_RESIZE]) + msgspec.json.encode({"Width": columns, "Height": lines}))


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    """Hand every key on as it is, and give the terminal back as it was."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(0)
    try:
        terminal.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
