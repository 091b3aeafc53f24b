"""SPDY/3.1 framing without I/O: bytes in, frames out, and the other way round.

kubectl before 1.31 speaks nothing else for exec, attach and port-forward, and newer ones put the same frames into
WebSockets for port-forward. This module knows the wire format and its limits; streams over a connection are
`spdysession`, what the streams of an exec mean is `spdyexec`. Source: SPDY protocol draft 3.1, section 2.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping

import msgspec

from minikube_raw.streaming.spdyheaders import HeaderDecoder, HeaderEncoder

VERSION = 3
MAX_CONTROL_BYTES = 16 << 10  # the draft asks for 8 KiB at least
MAX_DATA_BYTES = (1 << 24) - 1

PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL = 1, 2, 3, 5  # of RST_STREAM
GOAWAY_OK, GOAWAY_PROTOCOL_ERROR = 0, 1
_CONTROL = 1 << 31
_FIN, _UNIDIRECTIONAL = 1, 2
_ID_MASK = (1 << 31) - 1

_HEAD = struct.Struct("!II")  # type or stream, flags and length
_WORD = struct.Struct("!I")
_PAIR = struct.Struct("!II")
_SYN = struct.Struct("!IIBB")  # stream, associated stream, priority, slot


class Kind(enum.IntEnum):
    """Types of control frames."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class ProtocolError(ValueError):
    """The peer sent what is no SPDY/3.1; nothing after it can be understood, so the session ends."""


class SynStream(msgspec.Struct, frozen=True):
    """Opens a stream; `unidirectional` means that no data comes back on it."""

    stream_id: int
    headers: Mapping[str, str]
    fin: bool = False
    unidirectional: bool = False


class SynReply(msgspec.Struct, frozen=True):
    """Accepts a stream. spdystream holds back the data of a stream until it came."""

    stream_id: int
    headers: Mapping[str, str] = {}
    fin: bool = False


class Headers(msgspec.Struct, frozen=True):
    """More headers of an open stream."""

    stream_id: int
    headers: Mapping[str, str]
    fin: bool = False


class RstStream(msgspec.Struct, frozen=True):
    """Ends a stream in both directions at once."""

    stream_id: int
    status: int


class Settings(msgspec.Struct, frozen=True):
    """Values by setting number, flags dropped; only read, nothing here depends on one."""

    values: Mapping[int, int]


class Ping(msgspec.Struct, frozen=True):
    """To be sent back by whoever did not begin it: a client's pings are odd, a server's even."""

    ping_id: int


class GoAway(msgspec.Struct, frozen=True):
    """No new streams; those up to `last_stream_id` go on."""

    last_stream_id: int
    status: int = GOAWAY_OK


class WindowUpdate(msgspec.Struct, frozen=True):
    """The peer may send `delta` bytes more, on a stream or (stream 0) in the session."""

    stream_id: int
    delta: int


class Data(msgspec.Struct, frozen=True):
    """Payload. When read, it is a piece of a frame as it arrived: a long frame gives several, `fin` is on the last."""

    stream_id: int
    data: bytes
    fin: bool = False


Frame = SynStream | SynReply | Headers | RstStream | Settings | Ping | GoAway | WindowUpdate | Data


class Framer:
    """Both directions of one session. Not buffered beyond one control frame: data is handed on as it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body: tuple[int, int, bool] | None = None  # of the data frame that is being read: stream, bytes left, fin
        self._encoder = HeaderEncoder()
        self._decoder = HeaderDecoder()

    def receive(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete with these bytes. Raises ProtocolError; the framer is of no use then."""
        self._buffer += data
        while True:
            if self._body is not None:
                if (piece := self._data_piece()) is None:
                    return
                yield piece
            elif (control := self._control_frame()) is not None:
                frame = self._decode(*control)
                if frame is not None:
                    yield frame
            elif self._body is None:
                return

    def _control_frame(self) -> tuple[int, int, bytes] | None:
        """Take a whole control frame: type, flags, payload. None when there is none (yet), or a data frame begins."""
        if len(self._buffer) < _HEAD.size:
            return None
        first, second = _HEAD.unpack_from(self._buffer)
        flags, length = second >> 24, second & MAX_DATA_BYTES
        if not first & _CONTROL:
            if first == 0:
                raise ProtocolError("data on stream 0")
            del self._buffer[: _HEAD.size]
            self._body = (first, length, bool(flags & _FIN))
            return None
        if (first & ~_CONTROL) >> 16 != VERSION:
            raise ProtocolError(f"control frame of version {(first & ~_CONTROL) >> 16}")
        if length > MAX_CONTROL_BYTES:
            raise ProtocolError(f"control frame of {length} bytes")
        end = _HEAD.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_HEAD.size : end])
        del self._buffer[:end]
        return first & 0xFFFF, flags, payload

    def _data_piece(self) -> Data | None:
        assert self._body is not None
        stream_id, left, fin = self._body
        if left and not self._buffer:
            return None
        data = bytes(self._buffer[:left])
        del self._buffer[: len(data)]
        left -= len(data)
        self._body = (stream_id, left, fin) if left else None
        return Data(stream_id, data, fin and not left)

    def _decode(self, kind: int, flags: int, payload: bytes) -> Frame | None:
        """Return the frame; None for types we need not know (the draft says to ignore those)."""
        try:
            return self._decoded(kind, flags, payload)
        except struct.error as error:
            raise ProtocolError(f"control frame of type {kind} is too short") from error
        except ValueError as error:
            raise ProtocolError(str(error)) from error

    def _decoded(self, kind: int, flags: int, payload: bytes) -> Frame | None:
        fin = bool(flags & _FIN)
        match kind:
            case Kind.SYN_STREAM:
                stream_id, _, _, _ = _SYN.unpack_from(payload)
                headers = self._decoder.decode(payload[_SYN.size :])
                return SynStream(stream_id & _ID_MASK, headers, fin, bool(flags & _UNIDIRECTIONAL))
            case Kind.SYN_REPLY | Kind.HEADERS:
                (stream_id,) = _WORD.unpack_from(payload)
                headers = self._decoder.decode(payload[_WORD.size :])
                return (SynReply if kind == Kind.SYN_REPLY else Headers)(stream_id & _ID_MASK, headers, fin)
            case Kind.RST_STREAM:
                stream_id, status = _PAIR.unpack(payload)
                return RstStream(stream_id & _ID_MASK, status)
            case Kind.SETTINGS:
                return Settings(_settings(payload))
            case Kind.PING:
                return Ping(*_WORD.unpack(payload))
            case Kind.GOAWAY:
                last, status = _PAIR.unpack(payload)
                return GoAway(last & _ID_MASK, status)
            case Kind.WINDOW_UPDATE:
                stream_id, delta = _PAIR.unpack(payload)
                return WindowUpdate(stream_id & _ID_MASK, delta & _ID_MASK)
        return None

    def encode(self, frame: Frame) -> bytes:
        """Return the frame's bytes, to be sent in the order of the calls (header blocks build on each other)."""
        match frame:
            case Data(stream_id, data, fin):
                if len(data) > MAX_DATA_BYTES:
                    raise ValueError(f"data frame of {len(data)} bytes")
                return _HEAD.pack(stream_id, fin << 24 | len(data)) + data
            case SynStream(stream_id, headers, fin, unidirectional):
                payload = _SYN.pack(stream_id, 0, 0, 0) + self._encoder.encode(headers)
                return _control(Kind.SYN_STREAM, payload, fin | unidirectional << 1)
            case SynReply(stream_id, headers, fin):
                return _control(Kind.SYN_REPLY, _WORD.pack(stream_id) + self._encoder.encode(headers), fin)
            case Headers(stream_id, headers, fin):
                return _control(Kind.HEADERS, _WORD.pack(stream_id) + self._encoder.encode(headers), fin)
            case RstStream(stream_id, status):
                return _control(Kind.RST_STREAM, _PAIR.pack(stream_id, status))
            case Settings(values):
                pairs = b"".join(_PAIR.pack(number, value) for number, value in values.items())
                return _control(Kind.SETTINGS, _WORD.pack(len(values)) + pairs)
            case Ping(ping_id):
                return _control(Kind.PING, _WORD.pack(ping_id))
            case GoAway(last_stream_id, status):
                return _control(Kind.GOAWAY, _PAIR.pack(last_stream_id, status))
            case WindowUpdate(stream_id, delta):
                return _control(Kind.WINDOW_UPDATE, _PAIR.pack(stream_id, delta))


def _control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return _HEAD.pack(_CONTROL | VERSION << 16 | kind, flags << 24 | len(payload)) + payload


def _settings(payload: bytes) -> dict[int, int]:
    (count,) = _WORD.unpack_from(payload)
    if len(payload) != _WORD.size + count * _PAIR.size:
        raise ProtocolError(f"SETTINGS of {count} values in {len(payload)} bytes")
    return {number & 0xFFFFFF: value for number, value in _PAIR.iter_unpack(payload[_WORD.size :])}
