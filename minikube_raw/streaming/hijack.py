"""An HTTP connection taken away from aiohttp's server, for protocols that it does not know.

The handler writes the 101 itself and gives the connection another asyncio protocol; aiohttp hears only when it is lost. Bytes that
a client sends before it has the 101 are lost with aiohttp's parser: RFC 9110, section 7.8, forbids them, and no client does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

_BUFFER_BYTES = 64 << 10  # what may wait in each direction before the other side has to


def switching_protocols(upgrade: str, headers: Mapping[str, str]) -> bytes:
    """Return the head of a 101."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {upgrade}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def take_over(http: web.BaseRequest, head: bytes, protocol: asyncio.Protocol) -> asyncio.WriteTransport:
    """Answer with `head`, give the connection to `protocol` and return it. Raises ConnectionResetError when there is none.

    `protocol` has to tell `http.protocol` of the connection's end: aiohttp's server would keep it in its books for ever.
    """
    transport = http.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    # Whatever the handler returns or raises, nothing more may be said in HTTP on this connection.
    http.protocol.close()
    transport.write(head)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    return cast(asyncio.WriteTransport, transport)  # uvloop's are none by class


def take_bytes(http: web.BaseRequest, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Answer with `head`; return the connection as a stream of bytes. Raises ConnectionResetError when there is none."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(_BUFFER_BYTES, loop)
    protocol = _UpgradedBytes(http.protocol, reader, loop)
    transport = take_over(http, head, protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class Switched(web.StreamResponse):
    """What a handler returns after `take_over`: aiohttp writes nothing and closes the connection."""

    def __init__(self) -> None:
        super().__init__(status=101)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing: the head is written."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: whoever took the connection ended it."""


class _UpgradedBytes(asyncio.StreamReaderProtocol):
    """A stream of bytes that tells aiohttp's protocol of its end."""

    def __init__(
        self, http_protocol: asyncio.Protocol, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(reader, loop=loop)
        self._http_protocol = http_protocol

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._http_protocol.connection_lost(exc)
