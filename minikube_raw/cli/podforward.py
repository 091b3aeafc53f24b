"""`pod port-forward`: local ports that end in a pod, one WebSocket to the agent for each connection."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
import click

from minikube_raw.api.plain_text import one_line
from minikube_raw.cli import podagent
from minikube_raw.cli.errors import Failure
from minikube_raw.cli.main import Options
from minikube_raw.cli.podagent import namespace_option
from minikube_raw.linux.socket_paths import short_name

_PORTS = re.compile(r"(?:(\d{0,5}):)?(\d{1,5})")
_PROTOCOL = "v4.channel.k8s.io"
_CHUNK = 1 << 16
_DATA, _ERROR = 0, 1


@click.command("port-forward")
@click.argument("name")
@click.argument("ports", nargs=-1, required=True)
@namespace_option
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.pass_obj
def port_forward(options: Options, name: str, ports: Sequence[str], namespace: str, address: str) -> None:
    """Forward local ports to a pod until interrupted: 8080 is the same on both sides, 8080:80 is not, :80 takes any local one."""
    agent = podagent.agent_of(options)
    wanted = [_parse(each) for each in ports]
    podagent.pod(agent, namespace, name)
    forwarder = _Forwarder(str(agent.socket), f"/portForward/{namespace}/{name}", address)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(forwarder.run(wanted))


def _parse(text: str) -> tuple[int, int]:
    """(local port, the pod's); 0 is any."""
    found = _PORTS.fullmatch(text)
    local, remote = (found[1], int(found[2])) if found else (None, 0)
    if not 0 < remote < 1 << 16 or int(local or 0) >= 1 << 16:
        raise Failure(f"{text} is not a port", "write 8080, 8080:80 or :80")
    return remote if local is None else int(local or 0), remote


class _Forwarder:
    """Listens, and carries each connection over a WebSocket of its own."""

    def __init__(self, socket: str, path: str, address: str) -> None:
        self._socket, self._path, self._address = socket, path, address

    async def run(self, ports: list[tuple[int, int]]) -> None:
        """Forward until cancelled."""
        async with contextlib.AsyncExitStack() as servers:
            for local, remote in ports:
                try:
                    server = await asyncio.start_server(self._handler(remote), self._address, local)
                except OSError as error:
                    text = f"cannot listen on {self._address}:{local}: {error.strerror}"
                    raise Failure(text, "choose another local port, or :PORT for any") from error
                await servers.enter_async_context(server)
                for each in server.sockets:
                    click.echo(f"Forwarding from {self._address}:{each.getsockname()[1]} -> {remote}")
            await asyncio.Event().wait()

    def _handler(self, remote: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._carry(remote, reader, writer)
            except (aiohttp.ClientError, OSError) as error:
                click.echo(f"port {remote}: {one_line(str(error))}", err=True)
            finally:
                writer.close()

        return handle

    async def _carry(self, remote: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with short_name(self._socket) as name:
            session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(name))
            ws = await session.ws_connect(
                f"http://agent{self._path}", params={"port": str(remote)}, protocols=(_PROTOCOL,), max_msg_size=0
            )
        async with session, ws:
            sending = asyncio.create_task(self._send(ws, reader))
            try:
                await self._receive(ws, writer)
            finally:
                sending.cancel()

    async def _send(self, ws: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
        """What we read goes on; the protocol cannot say that it was all, so our end closes with the pod's answer."""
        while data := await reader.read(_CHUNK):
            await ws.send_bytes(bytes([_DATA]) + data)

    async def _receive(self, ws: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
        begun: set[int] = set()
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel not in begun:  # the first message of a channel is its port
                begun.add(channel)
                data = data[2:]
            if channel == _ERROR and data:
                click.echo(one_line(data.decode(errors="replace")), err=True)
                return
            writer.write(data)
            await writer.drain()
