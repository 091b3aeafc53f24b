"""Port-forwarding on the kubelet's side: a connection into the pod for each stream of bytes that a client opens.

What carries the streams (`portstreams` over SPDY, `portchannels` over WebSocket) and how the pod is reached (`dial`) come from
outside. Each direction is copied as fast as its receiver takes it and ends by itself, so that half-closing works.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from minikube_raw.streaming.upgrading import CHUNK_BYTES


class ClientStream(Protocol):
    """One forwarded connection as its client sees it."""

    @property
    def port(self) -> int:
        """The pod's port."""
        ...

    @property
    def half_closes(self) -> bool:
        """Whether it can go on sending after the pod's end."""
        ...

    async def read(self) -> bytes:
        """Return what the client sent, b"" after its end. Raises ConnectionError when it has given up."""
        ...

    async def write(self, data: bytes) -> None:
        """Send to the client, as fast as it takes it. Raises ConnectionError when it takes no more."""
        ...

    def finish(self) -> None:
        """Say that the pod sends nothing more."""
        ...

    def reset(self) -> None:
        """Say that the connection broke."""
        ...

    async def fail(self, text: str) -> None:
        """Say on the error stream why there is no connection, and end both."""
        ...

    def close(self) -> None:
        """End what is still open."""
        ...


class Target(NamedTuple):
    """Where connections go: the sandbox's name for error texts, and how one of its ports is reached (OSError when it is not)."""

    name: str
    dial: Callable[[int], Awaitable[socket.socket]]


async def forward(client: ClientStream, target: Target) -> None:
    """Connect and copy until both directions have ended. Never raises for what client or pod do."""
    try:
        reader, writer = await asyncio.open_connection(sock=await target.dial(client.port), limit=CHUNK_BYTES)
    except OSError as error:
        with contextlib.suppress(ConnectionError):
            # The kubelet's text, whose uid is always empty (k8s.io/kubelet pkg/cri/streaming/portforward).
            await client.fail(f"error forwarding port {client.port} to pod {target.name}, uid : {error}")
        return
    ways = [asyncio.create_task(_to_client(client, reader)), asyncio.create_task(_to_pod(client, writer))]
    try:
        awaited = ways if client.half_closes else ways[:1]
        done, _ = await asyncio.wait(awaited, return_when=asyncio.FIRST_EXCEPTION)
        if any(way.exception() for way in done):
            client.reset()
            writer.transport.abort()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        client.close()
        writer.close()


async def _to_pod(client: ClientStream, writer: asyncio.StreamWriter) -> None:
    while data := await client.read():
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _to_client(client: ClientStream, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(CHUNK_BYTES):
        await client.write(data)
    client.finish()
