"""Port-forwarding as Kubernetes' channels over WebSocket (v4.channel.k8s.io): two channels a port, data and errors.

The ports are in the query; the first message of each channel is its port, 16 bits little-endian. A client cannot half-close.
Source: k8s.io/kubelet pkg/cri/streaming/portforward/websocket.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import struct
from collections.abc import Sequence

from aiohttp import WSMsgType, web

from minikube_raw.streaming.portforwarding import Target, forward

PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")
_WAITING_MESSAGES = 8


def parse_ports(values: Sequence[str]) -> list[int]:
    """Return the ports of repeated or comma-separated `port` parameters. Raises ValueError in the kubelet's words."""
    if not values:
        raise ValueError('query parameter "port" is required')
    ports = []
    for value in values:
        if not value:
            raise ValueError('query parameter "port" cannot be empty')
        for text in value.split(","):
            if not text.isdecimal() or int(text) >= 1 << 16:
                raise ValueError(
                    f'unable to parse "{value}" as a port: strconv.ParseUint: parsing "{text}": invalid syntax'
                )
            if int(text) < 1:
                raise ValueError(f'port "{value}" must be > 0')
            ports.append(int(text))
    return ports


class _Messages:
    """Both sides of a WebSocket's channels, bytes or base64 text."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._base64 = "base64" in (socket.ws_protocol or "")

    async def send(self, channel: int, data: bytes) -> None:
        if self._base64:
            await self._socket.send_str(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send_bytes(bytes([channel]) + data)

    async def receive(self) -> tuple[int, bytes] | None:
        """Return a channel and its data, None when the client has left."""
        while True:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return None
            raw = message.data.encode() if isinstance(message.data, str) else message.data
            if not raw:
                continue
            if not self._base64:
                return raw[0], raw[1:]
            try:
                return int(raw[:1]), base64.b64decode(raw[1:], validate=True)
            except (ValueError, binascii.Error):
                continue


class _Connection:
    """portforwarding.ClientStream over two channels."""

    half_closes = False

    def __init__(self, messages: _Messages, channel: int, port: int) -> None:
        self._messages = messages
        self._channel = channel
        self.port = port
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(_WAITING_MESSAGES)

    async def greet(self) -> None:
        for channel in (self._channel, self._channel + 1):
            await self._messages.send(channel, struct.pack("<H", self.port))

    async def read(self) -> bytes:
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        await self._messages.send(self._channel, data)

    def finish(self) -> None:
        """No message says so; the WebSocket ends with the last port."""

    def reset(self) -> None:
        """No message says so."""

    async def fail(self, text: str) -> None:
        await self._messages.send(self._channel + 1, text.encode())

    def close(self) -> None:
        """Nothing is open but the WebSocket."""


async def serve(http: web.BaseRequest, ports: Sequence[int], target: Target) -> web.StreamResponse:
    """Answer the upgrade and forward each port once, until all connections have ended or the client leaves."""
    socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=0)
    await socket.prepare(http)
    messages = _Messages(socket)
    connections = [_Connection(messages, 2 * index, port) for index, port in enumerate(ports)]
    for connection in connections:
        await connection.greet()
    forwarding = asyncio.gather(*(forward(connection, target) for connection in connections))
    client = asyncio.create_task(_distribute(messages, connections))
    try:
        await asyncio.wait((forwarding, client), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (forwarding, client):
            task.cancel()
        await asyncio.gather(forwarding, client, return_exceptions=True)
    await socket.close()
    return socket


async def _distribute(messages: _Messages, connections: Sequence[_Connection]) -> None:
    """Hand what comes in to its connection, waiting for one that is slow, until the client leaves."""
    while (received := await messages.receive()) is not None:
        channel, data = received
        if data and channel % 2 == 0 and channel // 2 < len(connections):
            await connections[channel // 2].incoming.put(data)
