"""grpc.health.v1.Health/Check over a connection of its own, in HTTP/2 without TLS, as Kubernetes' prober asks it.

h2 keeps the protocol's state and is imported here only, so that nodes without grpc probes never load it. Both messages of the
call have one field each, which is less than a protobuf library would need to be told.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from minikube_raw.kubelet.dialing import DialError, dial, host_port
from minikube_raw.kubelet.probe_http import USER_AGENT
from minikube_raw.kubelet.probes import Outcome, Result

_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_SERVING = 1
_UNIMPLEMENTED = 12
_CODES = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
]


class RPCError(Exception):
    """The call ended with a status other than OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


async def probe(host: str, port: int, service: str, timeout: float) -> Result:
    """Success when the service says SERVING."""
    address, within = host_port(host, port), f"{timeout:g}s"
    connected = False
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await dial(host, port)
            try:
                call = _Call(reader, writer, address)
                await call.connect()
                connected = True
                status = await call.check(service)
            finally:
                writer.transport.abort()
    except RPCError as error:
        return Result(Outcome.FAILURE, _wording(error))
    except (TimeoutError, DialError, OSError, h2.exceptions.H2Error):
        if connected:
            return Result(Outcome.FAILURE, f"timeout: health rpc did not complete within {within}")
        text = f'timeout: failed to connect service "{address}" within {within}: context deadline exceeded'
        return Result(Outcome.FAILURE, text)
    if status == _SERVING:
        return Result(Outcome.SUCCESS, "service healthy")
    name = _STATUSES[status] if status < len(_STATUSES) else str(status)
    return Result(Outcome.FAILURE, f'service unhealthy (responded with "{name}")')


def _wording(error: RPCError) -> str:
    if error.code == _UNIMPLEMENTED:
        return f"error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {error}"
    name = _CODES[error.code] if error.code < len(_CODES) else f"Code({error.code})"
    return f"error: health rpc probe failed: rpc error: code = {name} desc = {error}"


class _Call:
    """One unary call on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        self._reader, self._writer, self._authority = reader, writer, authority
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._headers: dict[str, str] = {}
        self._body = b""

    async def connect(self) -> None:
        """Exchange settings: only an HTTP/2 server answers."""
        self._h2.initiate_connection()
        while not any(isinstance(event, h2.events.RemoteSettingsChanged) for event in await self._turn()):
            pass

    async def check(self, service: str) -> int:
        """Health/Check: the number of the service's status. Raises RPCError."""
        self._h2.send_headers(1, self._request_headers())
        self._h2.send_data(1, _framed(_string_field(service.encode())), end_stream=True)
        while not any(self._take(event) for event in await self._turn()):
            pass
        code = int(self._headers.get("grpc-status", "2"))
        if code != 0:
            raise RPCError(code, self._headers.get("grpc-message", ""))
        return _enum_field(self._body[5:])

    async def _turn(self) -> list[Any]:
        """Send what is due, wait for data, return what it says."""
        self._writer.write(self._h2.data_to_send())
        data = await self._reader.read(1 << 16)
        if not data:
            raise ConnectionError("the server closed the connection")
        return list(self._h2.receive_data(data))

    def _take(self, event: Any) -> bool:
        """Note what belongs to the call; True at its end."""
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self._headers |= {str(name): str(value) for name, value in event.headers}
            case h2.events.DataReceived():
                self._body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, 1)
            case h2.events.StreamReset():
                raise RPCError(14, "stream terminated by RST_STREAM")
            case h2.events.ConnectionTerminated():
                raise ConnectionError("the server went away")
        return isinstance(event, h2.events.StreamEnded)

    def _request_headers(self) -> list[tuple[str, str]]:
        return [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", self._authority),
            ("content-type", "application/grpc"),
            ("user-agent", USER_AGENT),
            ("te", "trailers"),
        ]


def _framed(message: bytes) -> bytes:
    """A gRPC message: not compressed, with its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _string_field(text: bytes) -> bytes:
    """Protobuf field 1 of type string; an empty one is left out."""
    if not text:
        return b""
    length = bytes([len(text)]) if len(text) < 0x80 else bytes([len(text) & 0x7F | 0x80, len(text) >> 7])
    return b"\x0a" + length + text


def _enum_field(message: bytes) -> int:
    """Protobuf field 1 of type enum; 0 when it is not there."""
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0
