"""The transport to an API server over TLS: keep-alive requests and watches as streams of lines, by aiohttp.

It knows certificates and frames, nothing of kinds. A broken watch raises OSError and an ended one just ends: going on
from the last resourceVersion is the informer's matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import aiohttp

from minikube_raw.api import status
from minikube_raw.client.transport import Request, Response

_CHUNK = 1 << 18
# A burst of writes must not open a connection for each: a handshake costs both sides a millisecond, an idle one 40 KB.
_REQUESTS_AT_ONCE = 16


def client_context(
    *,
    ca_file: str | Path | None = None,
    ca_data: str | None = None,
    cert_file: str | Path | None = None,
    key_file: str | Path | None = None,
) -> ssl.SSLContext:
    """Return TLS settings that trust one cluster's CA only and show a certificate. Raises OSError."""
    context = ssl.create_default_context(cafile=ca_file, cadata=ca_data)
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context


class HTTPTransport:
    """Requests to one server as one user; implements client.transport.Transport. Timeouts are seconds."""

    def __init__(
        self,
        server: str,
        context: ssl.SSLContext | None = None,
        *,
        token: str = "",
        connect_timeout: float = 10.0,
        timeout: float = 60.0,
    ) -> None:
        self._server = server.rstrip("/")
        self._context = context
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=connect_timeout)
        self._watch_timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._session: aiohttp.ClientSession | None = None
        self._free = asyncio.Semaphore(_REQUESTS_AT_ONCE)

    async def request(self, request: Request) -> Response:
        """Send and read the whole answer. Raises OSError when the server is away or the connection breaks."""
        with _connection_errors():
            async with self._free, self._send(request, self._timeout) as response:
                body = await response.read()
                return Response(response.status, body, response.content_type, dict(response.headers))

    async def watch(self, request: Request) -> AsyncIterator[bytes]:
        """Yield one JSON WatchEvent at a time until the server ends the stream. Raises StatusError, OSError."""
        with _connection_errors():
            async with self._send(request, self._watch_timeout) as response:
                if response.status >= 300:
                    raise status.from_json(await response.read(), response.status)
                async for frame in _lines(response.content):
                    yield frame

    async def close(self) -> None:
        """Close kept-alive connections and running watches."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _send(
        self, request: Request, timeout: aiohttp.ClientTimeout
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:
            # No limit of the pool's: every watch holds a connection of its own, and would starve requests.
            connector = aiohttp.TCPConnector(limit=0, ssl=self._context or True)
            self._session = aiohttp.ClientSession(connector=connector, read_bufsize=_CHUNK)
        headers = {"Accept": request.accept, "User-Agent": request.user_agent}
        if request.body:
            headers["Content-Type"] = request.content_type
        return self._session.request(
            request.method,
            self._server + request.path,
            params=_pairs(request.query),
            data=request.body or None,
            headers=self._headers | headers,
            timeout=timeout,
        )


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split into lines of any length; StreamReader.readline refuses long ones."""
    pending: list[bytes] = []
    async for chunk in stream.iter_any():
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            pending.append(line)
            frame = b"".join(pending)
            pending.clear()
            if frame:
                yield frame
        if rest:
            pending.append(rest)


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    """Let everything that can break on the way be OSError; aiohttp has it so for some of its errors only."""
    try:
        yield
    except aiohttp.ClientError as error:
        if isinstance(error, OSError):
            raise
        raise ConnectionError(str(error) or type(error).__name__) from error


def _pairs(query: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(name, value) for name, values in query.items() for value in values]
