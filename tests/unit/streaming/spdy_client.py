"""A SPDY client made of the same framer and a transport in memory, beside the session it talks to."""

from __future__ import annotations

import asyncio

from minikube_raw.streaming import spdy
from minikube_raw.streaming.spdysession import Session, Stream


class Wire(asyncio.Transport):
    """Keeps what the session sends, as a client would understand it, and whether the session reads."""

    def __init__(self) -> None:
        super().__init__()
        self.framer = spdy.Framer()
        self.sent: list[spdy.Frame] = []
        self.reading = True
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += self.framer.receive(bytes(data))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    abort = close


class Client:
    """A session with its wire, and the frames that a client sends to it."""

    def __init__(self, max_streams: int = 4) -> None:
        self.wire = Wire()
        self.session = Session(max_streams=max_streams)
        self.session.connection_made(self.wire)

    def send(self, *frames: spdy.Frame) -> None:
        for frame in frames:
            self.session.data_received(self.wire.framer.encode(frame))

    async def open(self, number: int = 1) -> Stream:
        self.send(spdy.SynStream(number, {"streamtype": "stdin"}))
        stream = await self.session.next_stream()
        stream.reply()
        return stream

    def take_sent(self) -> list[spdy.Frame]:
        sent, self.wire.sent = self.wire.sent, []
        return sent
