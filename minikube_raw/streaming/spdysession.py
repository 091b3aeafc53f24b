"""The server's side of a SPDY session over any asyncio transport: streams the client opens, read and written here.

Back pressure is the transport's in both directions. Neither side of Go's spdystream sends or obeys WINDOW_UPDATE, so
keeping to a 64 KiB window would stall every kubectl: we send updates as we read, for clients that do obey, and pay no
heed to theirs. What all streams together have not yet read is bounded, then the transport is not read; like spdystream
itself, a stream nobody reads holds up the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
from collections.abc import Callable
from typing import cast

from minikube_raw.streaming import spdy

log = logging.getLogger(__name__)

UNREAD_BYTES = 256 << 10  # the transport is not read while more than this waits to be read from streams
CHUNK_BYTES = 32 << 10
WINDOW_STEP = 32 << 10  # half the initial window: an obedient client never has to stop
CLOSE_SECONDS = 5.0
PING_SECONDS = 10.0


class Stream:
    """One stream a client opened; `headers` say what for. Ends of both directions are independent."""

    def __init__(self, session: Session, opened: spdy.SynStream) -> None:
        self.id = opened.stream_id
        self.headers = opened.headers
        self._session = session
        self._unread = bytearray()
        self._credit = 0
        self._received_all = opened.fin
        self._sent_all = opened.unidirectional
        self._broken = False
        self._unwanted = False
        self._reader: asyncio.Future[None] | None = None  # who waits in read()

    def reply(self) -> None:
        """Accept: Go's clients wait for this before they open the next stream or send data."""
        self._session.send(spdy.SynReply(self.id))

    async def read(self) -> bytes:
        """Return what has come, 32 KiB at most, or b"" after the client's end. Raises ConnectionResetError."""
        while not self.readable:
            # Not the session's change: with a hundred streams each piece of data would wake a hundred readers.
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self.take()

    @property
    def readable(self) -> bool:
        """Whether `take` has something to say: bytes, the end or an error."""
        return bool(self._unread) or self._received_all or self._broken

    def take(self) -> bytes:
        """Return what a `read` would, when `readable`; for who waits for several streams at once."""
        if self._broken:
            raise ConnectionResetError(f"SPDY stream {self.id} was reset")
        data = bytes(self._unread[:CHUNK_BYTES])
        del self._unread[: len(data)]
        self._session.taken(len(data))
        self._credit += len(data)
        if self._credit >= WINDOW_STEP and not self._received_all:
            self._session.send(spdy.WindowUpdate(self.id, self._credit))
            self._credit = 0
        return data

    async def write(self, data: bytes) -> None:
        """Send, as fast as the client takes it. Raises ConnectionResetError when it takes no more."""
        for begin in range(0, len(data), CHUNK_BYTES):
            await self._session.writable()
            if self._broken or self._sent_all:
                raise ConnectionResetError(f"SPDY stream {self.id} is closed")
            self._session.send(spdy.Data(self.id, data[begin : begin + CHUNK_BYTES]))

    def finish(self) -> None:
        """Say that nothing more will be sent; a second call does nothing."""
        if not self._sent_all and not self._broken:
            self._sent_all = True
            self._session.send(spdy.Data(self.id, b"", fin=True))
            self._session.forget_if_over(self)

    def discard(self) -> None:
        """Want no more of what the client sends, nor of what has come."""
        self._unwanted = True
        self._session.taken(len(self._unread))
        self._unread.clear()

    def reset(self, status: int = spdy.CANCEL) -> None:
        """Give the stream up; spdy.REFUSED_STREAM instead of a reply refuses it."""
        if not self._broken:
            self._session.send(spdy.RstStream(self.id, status))
            self.lose()

    # -- called by the session -----------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether both directions have ended."""
        return self._broken or (self._received_all and self._sent_all)

    def receive(self, data: bytes, *, fin: bool) -> bool:
        """Take what the client sent; False when it had said that nothing more would come."""
        if self._received_all:
            return False
        if not self._unwanted:
            self._unread += data
            self._session.arrived(len(data))
        self._received_all = fin
        self._wake()
        self._session.forget_if_over(self)
        return True

    def lose(self) -> None:
        """Both directions have ended, whatever was under way."""
        self._broken = True
        self._session.taken(len(self._unread))
        self._unread.clear()
        self._wake()
        self._session.forget_if_over(self)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Session(asyncio.Protocol):
    """An asyncio protocol that serves streams; whoever has a transport that speaks SPDY/3.1 from now on gives it this."""

    def __init__(self, *, max_streams: int) -> None:
        self._max_streams = max_streams
        self._framer = spdy.Framer()
        self._streams: dict[int, Stream] = {}
        self._opened: asyncio.Queue[Stream | None] = asyncio.Queue()  # bounded by max_streams
        self._last_id = 0
        self._ping_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._credit = 0
        self._answers_wait = False
        self._reading = True
        self._closing = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    # -- for whoever serves the session --------------------------------------------------------------------------------

    async def next_stream(self) -> Stream:
        """Return the stream opened next; reply() or reset() it. Raises ConnectionResetError when the session is over."""
        stream = await self._opened.get()
        if stream is None:
            self._opened.put_nowait(None)
            raise ConnectionResetError("SPDY session is over")
        return stream

    async def next_change(self) -> None:
        """Return when something came in on any stream, or the connection is gone (which resets the streams)."""
        if not self._lost.is_set():
            self._changed.clear()
            await self._changed.wait()

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone."""
        return self._lost.is_set()

    async def writable(self) -> None:
        """Return when the transport takes more. Raises ConnectionResetError when it never will."""
        await self._writable.wait()
        if self._lost.is_set() or self._closing:
            raise ConnectionResetError("SPDY session is over")

    def send(self, frame: spdy.Frame) -> None:
        """Send a frame; nothing happens when the connection is gone."""
        if self._transport is not None and not self._lost.is_set() and not self._closing:
            self._transport.write(self._framer.encode(frame))

    async def close(self) -> None:
        """Let the client leave, which it does when it has read everything; then cut it off.

        Going first would lose output: Go's client drops what it has received but not handled when the connection ends.
        """
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._lost.wait()
            self._say_goodbye(spdy.GOAWAY_OK)
            await self._lost.wait()
        finally:
            self.abort()

    def abort(self) -> None:
        """End the connection at once; nothing happens when it is gone."""
        if self._transport is not None and not self._lost.is_set():
            self._transport.abort()

    def _say_goodbye(self, status: int) -> None:
        self.send(spdy.GoAway(self._last_id, status))
        self._closing = True
        if self._transport is not None and not self._lost.is_set():
            self._transport.close()
            self._set_timer(CLOSE_SECONDS, self.abort)  # for a client that does not take what is buffered

    def _set_timer(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, call)

    # -- called by streams ---------------------------------------------------------------------------------------------

    def arrived(self, size: int) -> None:
        """Count bytes that wait to be read from a stream."""
        self._unread += size
        self._regulate()

    def taken(self, size: int) -> None:
        """Count bytes that wait no more."""
        self._unread -= size
        self._credit += size
        if self._credit >= WINDOW_STEP:
            self.send(spdy.WindowUpdate(0, self._credit))
            self._credit = 0
        self._regulate()

    def forget_if_over(self, stream: Stream) -> None:
        """Make room for another stream."""
        if stream.is_over:
            self._streams.pop(stream.id, None)

    # -- called by the transport ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; also after Transport.set_protocol, which does not call it."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by class
        self._ping()

    def _ping(self) -> None:
        """Ping now and then: when the client has vanished the write fails, even while we do not read.

        But asyncio's TLS (not uvloop's) says nothing of a client's end, and sends no more, as long as we do not read what came
        before it.
        """
        if not self._reading and self._client_has_closed():
            self.abort()
            return
        if self._ping_id:
            self.send(spdy.Ping(self._ping_id))
        self._ping_id += 2
        self._set_timer(PING_SECONDS, self._ping)

    def _client_has_closed(self) -> bool:
        connection = self._transport.get_extra_info("socket") if self._transport is not None else None
        if connection is None:
            return False
        closed = select.poll()
        closed.register(connection.fileno(), select.POLLRDHUP)
        return bool(closed.poll(0))

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits for this connection."""
        if self._timer is not None:
            self._timer.cancel()
        self._lost.set()
        self._writable.set()
        self._changed.set()
        for stream in list(self._streams.values()):
            stream.lose()
        self._opened.put_nowait(None)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        self._writable.set()
        self._answers_wait = False
        self._regulate()

    def data_received(self, data: bytes) -> None:
        """Take bytes off the wire. What is no SPDY ends the session."""
        if self._closing:
            return
        try:
            for frame in self._framer.receive(data):
                self._handle(frame)
                self._changed.set()
        except spdy.ProtocolError as error:
            log.info("SPDY session ended: %s", error)
            self._say_goodbye(spdy.GOAWAY_PROTOCOL_ERROR)

    def _handle(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.Data(stream_id, data, fin):
                self._receive_data(stream_id, data, fin=fin)
            case spdy.SynStream():
                self._open(frame)
            case spdy.Headers(stream_id, _, True):
                self._receive_data(stream_id, b"", fin=True)
            case spdy.RstStream(stream_id):
                if stream_id in self._streams:
                    self._streams[stream_id].lose()
            case spdy.Ping(ping_id) if ping_id % 2:
                self._answer(frame)
            case spdy.GoAway():
                if not self._streams:
                    self._say_goodbye(spdy.GOAWAY_OK)

    def _receive_data(self, stream_id: int, data: bytes, *, fin: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None or not stream.receive(data, fin=fin):
            self._answer(spdy.RstStream(stream_id, spdy.INVALID_STREAM))

    def _open(self, frame: spdy.SynStream) -> None:
        if frame.stream_id % 2 == 0 or frame.stream_id <= self._last_id:
            raise spdy.ProtocolError(f"stream {frame.stream_id} opened after {self._last_id}")
        self._last_id = frame.stream_id
        if max(len(self._streams), self._opened.qsize()) >= self._max_streams:
            self._answer(spdy.RstStream(frame.stream_id, spdy.REFUSED_STREAM))
            return
        stream = self._streams[frame.stream_id] = Stream(self, frame)
        self._opened.put_nowait(stream)

    def _answer(self, frame: spdy.Frame) -> None:
        """Send what the client made us send; one that does not read its answers may ask no more."""
        self.send(frame)
        self._answers_wait = not self._writable.is_set()
        self._regulate()

    def _regulate(self) -> None:
        reading = self._unread <= UNREAD_BYTES and not self._answers_wait
        if reading == self._reading or self._transport is None or self._lost.is_set():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
