"""The client's side of an HTTP upgrade to a protocol that aiohttp does not know, and bytes copied between two connections.

A connection of its own for each: what was upgraded never returns to a pool. Source: RFC 9110, section 7.8.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

CHUNK_BYTES = 64 << 10
_HEAD_BYTES = 64 << 10
_REFUSAL_BYTES = 64 << 10
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0


class Upgraded(NamedTuple):
    """A connection after its 101, with the answer's headers (lower case)."""

    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class NotUpgraded(Exception):
    """Another answer than 101, with its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


async def upgrade(url: str, headers: Mapping[str, str], context: ssl.SSLContext | None) -> Upgraded:
    """Ask `url` by GET for the upgrade that `headers` name. Raises NotUpgraded, OSError, TimeoutError."""
    parts = urlsplit(url)
    async with asyncio.timeout(_CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(
            parts.hostname, parts.port or 443, ssl=context, limit=CHUNK_BYTES
        )
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(_ANSWER_SECONDS):
            code, answered = _parse_head(await reader.readuntil(b"\r\n\r\n"))
            if code != 101:
                raise NotUpgraded(code, (await _body(reader, answered)).decode(errors="replace").strip())
    except asyncio.IncompleteReadError as error:
        writer.close()
        raise ConnectionResetError("the connection ended before an answer") from error
    except BaseException:  # also when it is called off: the connection is nobody's yet
        writer.close()
        raise
    return Upgraded(answered, reader, writer)


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    words = status_line.split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionResetError(f"no HTTP answer: {status_line[:100]!r}")
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """Read a refusal's text, which is short and has a length."""
    length = headers.get("content-length", "")
    size = min(int(length), _REFUSAL_BYTES) if length.isdigit() else 0
    return await reader.readexactly(size)


async def relay(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter], other: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Copy bytes both ways, each as fast as its receiver takes them, until either connection ends; then close both."""
    ways = [asyncio.create_task(copy(one[0], other[1])), asyncio.create_task(copy(other[0], one[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for writer in (one[1], other[1]):
            writer.close()  # sends what it still has


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the reader's end or a broken connection."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # either side has gone, which ends both
