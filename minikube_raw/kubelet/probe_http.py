"""An HTTP GET as probes and hooks make it: one request on a connection of its own, redirects within the host, 10 KiB of body.

Written on streams instead of a client library: a probe needs none of its pools and sessions, and 110 pods probe all day.
Words and rules are Kubernetes' (pkg/probe/http) and, where the connection fails, Go's.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Mapping
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from minikube_raw.api.core import Container, HTTPGetAction
from minikube_raw.kubelet.dialing import DialError, dial, host_port
from minikube_raw.kubelet.probes import Outcome, Result

USER_AGENT = "kube-probe/1.36"
MAX_BODY = 10 << 10
MAX_REDIRECTS = 10
_MAX_HEADERS = 1 << 18
_IN_PATHS = "/%!$&'()*+,;=:@~[]"
_IN_QUERIES = f"{_IN_PATHS}?"
_SWITCHING = 101
_WITHOUT_BODY = (204, 304)
_REDIRECTS = (301, 302, 303, 307, 308)


class Target(msgspec.Struct, frozen=True):
    """Where a GET goes. `headers` are sent as they are; Host goes with them."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()


class Response(msgspec.Struct, frozen=True):
    """Status, headers (lower case) and the first 10 KiB of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ExchangeError(Exception):
    """There was no answer; the text is Go's."""


class NamedPortError(Exception):
    """The container has no port of that name."""


def port_number(port: int | str, container: Container) -> int:
    """A port's number, by number or by the name one of the container's ports has. Raises NamedPortError."""
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for each in container.ports:
        if each.name == port:
            return each.container_port
    raise NamedPortError(f'couldn\'t find port: "{port}" in container "{container.name}"')


def target(action: HTTPGetAction, container: Container, pod_ip: str) -> Target:
    """The GET that an action asks for. Raises NamedPortError."""
    address = host_port(action.host or pod_ip, port_number(action.port, container))
    path = _escaped(action.path if action.path.startswith("/") else f"/{action.path}")
    given = [(header.name, header.value) for header in action.http_headers]
    names = {name.lower() for name, _ in given}
    headers = [("Host", address)] if "host" not in names else []
    headers += [
        (name, value) for name, value in (("User-Agent", USER_AGENT), ("Accept", "*/*")) if name.lower() not in names
    ]
    headers += [(name, value) for name, value in given if value or name.lower() not in ("user-agent", "accept")]
    return Target(f"{action.scheme.lower()}://{address}{path}", tuple(headers))


def _escaped(path: str) -> str:
    """A path and its query as a request line can carry them: what a manifest has as text (blanks, umlauts) is escaped.

    What is after a # is for browsers, and sent to nobody.
    """
    before, _, query = path.partition("#")[0].partition("?")
    return quote(before, safe=_IN_PATHS) + (f"?{quote(query, safe=_IN_QUERIES)}" if query else "")


async def probe(where: Target, timeout: float) -> Result:
    """Success from 200 to 399; a redirect to another host is a warning."""
    try:
        async with asyncio.timeout(timeout):
            response = await get(where)
    except TimeoutError:
        return Result(Outcome.FAILURE, f"{_quoted(where)}: {_TIMED_OUT}")
    except ExchangeError as error:
        return Result(Outcome.FAILURE, str(error))
    body = response.body.decode(errors="replace")
    if 200 <= response.status < 300:
        return Result(Outcome.SUCCESS, body)
    if 300 <= response.status < 400:
        return Result(Outcome.WARNING, f"Probe terminated redirects, Response body: {body}")
    return Result(Outcome.FAILURE, f"HTTP probe failed with statuscode: {response.status}")


_TIMED_OUT = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"


async def get(where: Target) -> Response:
    """The answer after redirects within the host. Raises ExchangeError."""
    first = urlsplit(where.url).hostname
    for _ in range(MAX_REDIRECTS):
        response = await _exchange(where)
        location = response.headers.get("location")
        if response.status not in _REDIRECTS or not location:
            return response
        following = urljoin(where.url, location)
        if urlsplit(following).hostname != first or urlsplit(following).scheme not in ("http", "https"):
            return response
        where = Target(following, _for_next(where, following, kept=not urlsplit(location).netloc))
    raise ExchangeError(f"{_quoted(where)}: stopped after {MAX_REDIRECTS} redirects")


def _for_next(where: Target, following: str, *, kept: bool) -> tuple[tuple[str, str], ...]:
    """The headers of the next request: Host as it was if the redirect names no host, as Go has it."""
    netloc = urlsplit(following).netloc
    return tuple((name, netloc if name.lower() == "host" and not kept else value) for name, value in where.headers)


async def _exchange(where: Target) -> Response:
    parts = urlsplit(where.url)
    secure = parts.scheme == "https"
    try:
        port = parts.port or (443 if secure else 80)
        reader, writer = await dial(parts.hostname or "", port, tls=_context() if secure else None, limit=_MAX_HEADERS)
    except ssl.SSLError as error:
        raise ExchangeError(f"{_quoted(where)}: {_tls_text(error)}") from None
    except DialError as error:
        raise ExchangeError(f"{_quoted(where)}: {error}") from None
    try:
        writer.write(_request(where))
        return await _response(reader)
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as error:
        reset = isinstance(error, ConnectionResetError)
        raise ExchangeError(f"{_quoted(where)}: {'read: connection reset by peer' if reset else 'EOF'}") from None
    except (asyncio.LimitOverrunError, ValueError) as error:
        raise ExchangeError(f"{_quoted(where)}: net/http: HTTP/1.x transport connection broken: {error}") from None
    finally:
        writer.transport.abort()


def _request(where: Target) -> bytes:
    parts = urlsplit(where.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"GET {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in where.headers),
        "Connection: close",
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


async def _response(reader: asyncio.StreamReader) -> Response:
    """Raises ValueError for what is not HTTP, ExchangeError where the body breaks off, IncompleteReadError before."""
    status, headers = await _head(reader)
    while 100 <= status < 200 and status != _SWITCHING:
        status, headers = await _head(reader)
    if status < 200 or status in _WITHOUT_BODY:  # its connection may well stay open
        return Response(status, headers, b"")
    try:
        return Response(status, headers, await _body(reader, headers))
    except asyncio.IncompleteReadError:
        raise ExchangeError("unexpected EOF") from None


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """Up to MAX_BODY of it, and no byte is waited for that the headers do not promise."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunked(reader)
    length = headers.get("content-length", "")
    if length.isdigit():
        return await reader.readexactly(min(int(length), MAX_BODY))
    body = b""
    while len(body) < MAX_BODY and (chunk := await reader.read(MAX_BODY - len(body))):
        body += chunk
    return body


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = await reader.readuntil(b"\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError(f'malformed HTTP response "{head.rstrip().decode(errors="replace")}"')
    headers: dict[str, str] = {}
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.decode(errors="replace").partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(words[1]), headers


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    """The pieces of a body, up to MAX_BODY: a server that sends pieces need not close the connection after the last."""
    body = b""
    while len(body) < MAX_BODY:
        size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        if not size:
            break
        body += await reader.readexactly(min(size, MAX_BODY - len(body)))
        if len(body) < MAX_BODY:
            await reader.readexactly(len(b"\r\n"))
    return body


@functools.cache
def _context() -> ssl.SSLContext:
    """TLS without verification: a probe asks whether something answers, not who."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _quoted(where: Target) -> str:
    return f'Get "{where.url}"'


def _tls_text(error: ssl.SSLError) -> str:
    """A plain server answers a handshake with text, which OpenSSL takes for a wrong version."""
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return "http: server gave HTTP response to HTTPS client"
    return f"remote error: tls: {(error.reason or str(error)).lower().replace('_', ' ')}"
