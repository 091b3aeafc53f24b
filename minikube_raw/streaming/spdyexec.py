"""A client's end of exec and attach over SPDY/3.1: a stream for each channel, named by its `streamtype` header.

This is what kubectl before 1.31 speaks. Versions of the protocol differ in resize (since v3) and in how the error stream
tells an exit code (JSON since v4). Source: k8s.io/apimachinery pkg/util/remotecommand, client-go tools/remotecommand.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from aiohttp import web

from minikube_raw.streaming import hijack, spdy, spdyupgrade
from minikube_raw.streaming.channels import CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, Message, exit_text
from minikube_raw.streaming.spdysession import Session, Stream

V4, V3, V2, V1 = "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"
PROTOCOLS = (V4, V3, V2, V1)
_SIZE_BYTES = 256  # of a terminal's size, which is a small JSON object
OPEN_SECONDS = 30.0  # the kubelet's default streamCreationTimeout
_TYPES = {"error": ERROR, "stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "resize": RESIZE}


class SpdyChannels:
    """channels.Channels over an upgraded connection."""

    def __init__(self, session: Session, streams: dict[int, Stream], protocol: str) -> None:
        self._session = session
        self._streams = streams
        self._protocol = protocol
        self._pending: deque[Message] = deque()
        self._size = b""  # the beginning of one whose rest has not come
        self._inputs = {channel: streams[channel] for channel in (RESIZE, STDIN) if channel in streams}

    @classmethod
    async def accept(cls, http: web.BaseRequest, expected: frozenset[int]) -> SpdyChannels:
        """Switch protocols and wait until the client has opened the expected channels and its error stream.

        Raises StatusError 403 without a common protocol, ConnectionResetError when the client goes or opens others.
        """
        protocol = spdyupgrade.negotiate(http, PROTOCOLS) or V1
        awaited = expected | {ERROR} if protocol in (V4, V3) else (expected | {ERROR}) - {RESIZE}
        session = spdyupgrade.switch(http, protocol, max_streams=len(awaited))
        with contextlib.ExitStack() as undo:
            undo.callback(session.abort)
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    streams = await _opened(session, awaited)
            except TimeoutError:
                raise ConnectionResetError("the client did not open its streams") from None
            undo.pop_all()
        return cls(session, streams, protocol)

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns."""
        return hijack.Switched()

    async def receive(self) -> Message | None:
        """Return the client's next message."""
        while not self._session.is_lost:
            if self._pending:
                return self._pending.popleft()
            channel = next((number for number, stream in self._inputs.items() if stream.readable), None)
            if channel is None:
                await self._session.next_change()
                continue
            try:
                self._pending += self._take(channel)
            except ConnectionResetError:
                return None
        return None

    def _take(self, channel: int) -> list[Message]:
        data = self._inputs[channel].take()
        if not data:
            del self._inputs[channel]
            return [Message(CLOSE, bytes([channel]))]
        if channel != RESIZE:
            return [Message(channel, data)]
        # Sizes follow one another as JSON documents, and kubectl sends the first two at once.
        *sizes, self._size = (self._size + data).replace(b"}", b"}\n").split(b"\n")
        self._size = self._size[-_SIZE_BYTES:]
        return [Message(RESIZE, size) for size in sizes if size.strip()]

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes on a channel; nothing is sent on one that the client did not open."""
        stream = self._streams.get(channel)
        if stream is not None and channel in (STDOUT, STDERR):
            await stream.write(data)

    async def finish(self, final: bytes) -> None:
        """Send the final status, end every stream, and close when the client has read it all."""
        said = final if self._protocol == V4 else exit_text(final).encode()
        try:
            for channel in (STDOUT, STDERR):
                if channel in self._streams:
                    self._streams[channel].finish()
            await self._streams[ERROR].write(said)
            for stream in self._streams.values():
                stream.discard()
                stream.finish()
        except ConnectionResetError:
            pass  # the client did not wait for the end
        await self._session.close()


async def _opened(session: Session, awaited: frozenset[int]) -> dict[int, Stream]:
    """Return the awaited channels' streams, accepted in the order in which the client opened them."""
    streams: dict[int, Stream] = {}
    while awaited - streams.keys():
        stream = await session.next_stream()
        channel = _TYPES.get(stream.headers.get("streamtype", ""))
        if channel not in awaited or channel in streams:
            stream.reset(spdy.REFUSED_STREAM)
            continue
        stream.reply()
        streams[channel] = stream
    return streams
