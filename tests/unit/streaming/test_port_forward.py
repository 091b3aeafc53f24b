"""Port-forwarding as a client sees it, against a server on this host's loopback that stands for the pod's."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType, web
from aiohttp.test_utils import TestServer

from minikube_raw.streaming import portchannels, portstreams, spdy, upgrading
from minikube_raw.streaming.portforwarding import Target

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
UPGRADE = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "portforward.k8s.io"}


class Pod:
    """Listens on one port of its own choice; every other port of the pod is closed."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0

    async def dial(self, port: int) -> socket.socket:
        if port != self.port:
            raise ConnectionRefusedError(f"nobody listens on {port}")
        made = socket.socket()
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        return made


@asynccontextmanager
async def forwarded(handler: Handler) -> AsyncIterator[tuple[Pod, str]]:
    """Serve a pod whose connections `handler` serves; yields it and where port-forward is asked for."""
    pod = Pod()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pod.connections += 1
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            pod.connections -= 1
            writer.close()

    async def serve(request: web.Request) -> web.StreamResponse:
        target = Target("sandbox1", pod.dial)
        if "port" in request.query:
            return await portchannels.serve(request, portchannels.parse_ports(request.query.getall("port")), target)
        return await portstreams.serve(request, target)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    pod.port = listening.sockets[0].getsockname()[1]
    application = web.Application()
    application.router.add_get("/portForward", serve)
    server = TestServer(application)
    await server.start_server()
    try:
        async with asyncio.timeout(60):
            yield pod, str(server.make_url("/portForward"))
    finally:
        listening.close()
        await server.close()


class Spdy:
    """kubectl's side: opens pairs of streams, and keeps what comes back by stream."""

    def __init__(self, upgraded: upgrading.Upgraded) -> None:
        self._reader, self.writer = upgraded.reader, upgraded.writer
        self._framer = spdy.Framer()
        self._last = -1
        self.received: dict[int, bytearray] = {}
        self.ended: dict[int, str] = {}

    def open(self, kind: str, port: int | str, request: str) -> int:
        self._last += 2
        headers = {"streamtype": kind, "port": str(port)} | ({"requestid": request} if request else {})
        self.send(spdy.SynStream(self._last, headers))
        return self._last

    def connect(self, port: int, request: str = "0") -> tuple[int, int]:
        """Open a connection as kubectl does; returns its data and error stream."""
        error = self.open("error", port, request)
        self.send(spdy.Data(error, b"", fin=True))
        return self.open("data", port, request), error

    def send(self, *frames: spdy.Frame) -> None:
        for frame in frames:
            self.writer.write(self._framer.encode(frame))

    async def until(self, true: Callable[[], bool]) -> None:
        """Read frames until something is so."""
        while not true():
            data = await self._reader.read(1 << 16)
            assert data, "the server has closed"
            for frame in self._framer.receive(data):
                self._take(frame)

    def _take(self, frame: spdy.Frame) -> None:
        if isinstance(frame, spdy.Data):
            self.received.setdefault(frame.stream_id, bytearray()).extend(frame.data)
            if frame.fin:
                self.ended[frame.stream_id] = "end"
        elif isinstance(frame, spdy.RstStream):
            self.ended[frame.stream_id] = "reset"

    async def ends(self, *streams: int) -> None:
        await self.until(lambda: all(stream in self.ended for stream in streams))


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Spdy]:
    upgraded = await upgrading.upgrade(url, UPGRADE, None)
    assert upgraded.headers["x-stream-protocol-version"] == "portforward.k8s.io"
    try:
        yield Spdy(upgraded)
    finally:
        upgraded.writer.close()


async def answers_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    asked = await reader.read(-1)
    writer.write(b"heard " + asked)
    await writer.drain()


async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def test_a_client_that_ends_its_half_still_gets_the_answer() -> None:
    async with forwarded(answers_at_the_end) as (pod, url), client(url) as kubectl:
        data, error = kubectl.connect(pod.port)
        kubectl.send(spdy.Data(data, b"question", fin=True))
        await kubectl.ends(data, error)

    assert kubectl.received[data] == b"heard question"
    assert kubectl.received.get(error, b"") == b""


async def test_a_hundred_connections_share_one_session() -> None:
    async with forwarded(echoes) as (pod, url), client(url) as kubectl:
        pairs = [kubectl.connect(pod.port, str(number)) for number in range(100)]
        for data, _ in pairs:
            kubectl.send(spdy.Data(data, b"%d" % data, fin=True))
        await kubectl.ends(*(data for data, _ in pairs))

    assert all(kubectl.received[data] == b"%d" % data for data, _ in pairs)


async def test_a_port_nobody_listens_on_is_told_on_the_error_stream() -> None:
    async with forwarded(echoes) as (_, url), client(url) as kubectl:
        data, error = kubectl.connect(9)
        await kubectl.ends(data, error)

    assert kubectl.received[error] == b"error forwarding port 9 to pod sandbox1, uid : nobody listens on 9"


async def test_a_connection_the_pod_resets_is_reset() -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with forwarded(resets) as (pod, url), client(url) as kubectl:
        data, error = kubectl.connect(pod.port)
        kubectl.send(spdy.Data(data, b"x"))
        await kubectl.ends(data, error)

    assert kubectl.ended == {data: "reset", error: "end"}


async def test_clients_without_request_ids_are_paired_by_stream_numbers() -> None:
    async with forwarded(echoes) as (pod, url), client(url) as kubectl:
        data, error = kubectl.connect(pod.port, request="")
        kubectl.send(spdy.Data(data, b"old", fin=True))
        await kubectl.ends(data, error)

    assert kubectl.received[data] == b"old"


@pytest.mark.parametrize(("kind", "port"), [("stdin", "80"), ("data", ""), ("data", "http"), ("data", "0"), ("data", "65536")])  # fmt: skip
async def test_a_stream_that_makes_no_sense_is_reset_and_others_go_on(kind: str, port: str) -> None:
    async with forwarded(echoes) as (pod, url), client(url) as kubectl:
        bad = kubectl.open(kind, port, "7")
        data, _ = kubectl.connect(pod.port)
        kubectl.send(spdy.Data(data, b"good", fin=True))
        await kubectl.ends(bad, data)

    assert (kubectl.ended[bad], kubectl.received[data]) == ("reset", b"good")


async def test_a_client_that_leaves_cuts_its_connections(eventually) -> None:
    async with forwarded(echoes) as (pod, url):
        async with client(url) as kubectl:
            data, _ = kubectl.connect(pod.port)
            kubectl.send(spdy.Data(data, b"x"))
            await kubectl.until(lambda: data in kubectl.received)
            assert pod.connections == 1
        await eventually(lambda: pod.connections == 0)


async def test_a_client_that_does_not_read_makes_the_pod_wait_and_then_gets_everything() -> None:
    size, sent = 64 << 20, [0]

    async def sends(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent[0] < size:
            writer.write(bytes(1 << 18))
            sent[0] += 1 << 18
            await writer.drain()

    async with forwarded(sends) as (pod, url), client(url) as kubectl:
        data, error = kubectl.connect(pod.port)
        before = -1
        while before != sent[0]:  # until it has to wait
            before = sent[0]
            await asyncio.sleep(0.1)
        assert sent[0] < size // 2
        await kubectl.ends(data, error)

    assert len(kubectl.received[data]) == size


@asynccontextmanager
async def channels(url: str, protocol: str, *ports: int) -> AsyncIterator[Any]:
    query = "&".join(f"port={port}" for port in ports)
    async with ClientSession() as session, session.ws_connect(f"{url}?{query}", protocols=(protocol,)) as socket:
        yield socket


async def test_over_websocket_each_port_has_a_data_and_an_error_channel() -> None:
    async with forwarded(echoes) as (pod, url), channels(url, "v4.channel.k8s.io", pod.port, 9) as socket:
        greetings = [await socket.receive_bytes() for _ in range(4)]
        await socket.send_bytes(b"\0hello")
        answers = {await socket.receive_bytes(), await socket.receive_bytes()}

    numbers = [struct.pack("<H", pod.port), struct.pack("<H", 9)]
    assert greetings == [b"\0" + numbers[0], b"\1" + numbers[0], b"\2" + numbers[1], b"\3" + numbers[1]]
    assert answers == {b"\0hello", b"\3error forwarding port 9 to pod sandbox1, uid : nobody listens on 9"}


async def test_over_websocket_base64_clients_are_served_and_the_pods_end_closes() -> None:
    async def greets(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hi")

    async with forwarded(greets) as (pod, url), channels(url, "v4.base64.channel.k8s.io", pod.port) as socket:
        texts = [message.data async for message in socket if message.type is WSMsgType.TEXT]

    assert texts[2:] == ["0aGk="]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], 'query parameter "port" is required'),
        ([""], 'query parameter "port" cannot be empty'),
        (["80,x"], 'unable to parse "80,x" as a port'),
        (["0"], 'port "0" must be > 0'),
    ],
)
def test_nonsense_for_ports_is_refused(values: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        portchannels.parse_ports(values)


async def test_another_answer_than_an_upgrade_is_told_with_its_text() -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=500, text='pod not found ("p_ns")')

    application = web.Application()
    application.router.add_get("/", refuse)
    async with TestServer(application) as server:
        with pytest.raises(upgrading.NotUpgraded, match="pod not found") as refused:
            await upgrading.upgrade(str(server.make_url("/")), UPGRADE, None)

    assert refused.value.code == 500
