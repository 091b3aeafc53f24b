"""The kubelet's API: streams over WebSocket, logs, and who may use it."""

from __future__ import annotations

import asyncio
import base64
import os

import aiohttp
import msgspec
import pytest
from aiohttp import test_utils
from fake_runtime import FakeRuntime
from served_node import Node, run_sandbox, start

from minikube_raw.client.clock import ManualClock
from minikube_raw.kubelet import streaming
from minikube_raw.kubelet.server import Server
from minikube_raw.kubelet.watching import FileWatcher
from minikube_raw.runtime import cri
from minikube_raw.streaming import spdy, upgrading


class Session:
    """A process made of pipes: what is written to stdin comes back on stdout."""

    def __init__(self, code: int = 0) -> None:
        self._code = code
        self.child_stdin, self.stdin = os.pipe()
        self.stdout, self.child_stdout = os.pipe()
        self.stderr, self.child_stderr = os.pipe()
        for fd in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(fd, False)
        self.ended = asyncio.Event()
        self.size = (0, 0)
        self.closed = False

    def end(self) -> None:
        for fd in (self.child_stdin, self.child_stdout, self.child_stderr):
            os.close(fd)
        self.ended.set()

    async def resize(self, width: int, height: int) -> None:
        self.size = (width, height)

    async def wait(self) -> int:
        await self.ended.wait()
        return self._code

    def close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def close(self) -> None:
        self.close_stdin()
        os.close(self.stdout)
        os.close(self.stderr)
        self.closed = True


class Runtime(FakeRuntime):
    session: Session | cri.RuntimeServiceError

    async def exec(self, container_id, command, *, tty=False, stdin=False):
        self.calls.append(("exec", command, tty, stdin))
        if isinstance(self.session, cri.RuntimeServiceError):
            raise self.session
        return self.session

    async def attach(self, container_id):
        return self.session


@pytest.fixture
async def runtime() -> Runtime:
    made = Runtime()
    await run_sandbox(made)
    return made


@pytest.fixture
async def http(runtime, tmp_path):
    watcher = FileWatcher()
    server = Server(Node(tmp_path), runtime, watcher, ManualClock())
    client = test_utils.TestClient(test_utils.TestServer(server.application(check_client=False)))
    await client.start_server()
    yield client
    await client.close()
    watcher.close()


def connect(http, query: str = "command=sh&command=-c&input=1&output=1&error=1"):
    return http.ws_connect(f"/exec/ns/p/c?{query}", protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))


async def frames(socket) -> list[bytes]:
    return [message.data async for message in socket if message.type is aiohttp.WSMsgType.BINARY]


@pytest.mark.parametrize(("code", "status"), [(0, "Success"), (3, "Failure")])
async def test_exec_carries_streams_and_the_exit_code(http, runtime, eventually, code, status) -> None:
    await start(runtime)
    runtime.session = session = Session(code)
    async with asyncio.timeout(60), connect(http) as socket:
        assert socket.protocol == "v5.channel.k8s.io"
        assert await socket.receive_bytes() == b"\x01"
        await socket.send_bytes(b"\x00hello")
        await socket.send_bytes(b'\x04{"Width":80,"Height":24}')
        await socket.send_bytes(b"\xff\x00")
        while (data := await asyncio.to_thread(os.read, session.child_stdin, 100)) != b"":
            os.write(session.child_stdout, data)
        os.write(session.child_stderr, b"warning")
        session.end()
        received = await frames(socket)

    assert b"\x01hello" in received
    assert b"\x02warning" in received
    end = msgspec.json.decode(received[-1][1:])
    assert (received[-1][0], end["status"], session.size) == (3, status, (80, 24))
    await eventually(lambda: session.closed)
    if code:
        assert end["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    assert runtime.calls[-1] == ("exec", ["sh", "-c"], False, True)


async def spdy_frames(http, path: str, *types: str) -> tuple[dict[str, bytes], bytes]:
    """Open streams over SPDY/3.1 as kubectl 1.20 does; return what came back on each, with hello sent to stdin."""
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
    upgraded = await upgrading.upgrade(str(http.make_url(path)), headers, None)
    framer, received, open_streams = (
        spdy.Framer(),
        dict.fromkeys(types, b""),
        dict(zip(range(1, 99, 2), types, strict=False)),
    )
    for number, kind in open_streams.items():
        upgraded.writer.write(framer.encode(spdy.SynStream(number, {"streamtype": kind})))
        if kind == "stdin":
            upgraded.writer.write(framer.encode(spdy.Data(number, b"hello", fin=True)))
    while True:
        data = await upgraded.reader.read(4096)
        assert data
        for frame in framer.receive(data):
            if isinstance(frame, spdy.Data):
                received[open_streams[frame.stream_id]] += frame.data
                if frame.fin and open_streams[frame.stream_id] == "error":
                    upgraded.writer.close()
                    return received, received["error"]


async def test_exec_is_served_over_spdy_too(http, runtime) -> None:
    await start(runtime)
    runtime.session = session = Session(3)

    async def echo() -> None:
        while (data := await asyncio.to_thread(os.read, session.child_stdin, 100)) != b"":
            os.write(session.child_stdout, data)
        session.end()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(echo())
        path = "/exec/ns/p/c?command=cat&input=1&output=1&error=1"
        received, final = await spdy_frames(http, path, "error", "stdin", "stdout", "stderr")

    assert received["stdout"] == b"hello"
    assert msgspec.json.decode(final)["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_output_that_a_slow_client_has_not_taken_is_sent_after_the_process_has_ended(
    http, runtime, monkeypatch
) -> None:
    monkeypatch.setattr(streaming, "_DRAIN_SECONDS", 0.02)
    await start(runtime)
    runtime.session = session = Session()
    async with asyncio.timeout(60), connect(http) as socket:
        os.set_blocking(session.child_stdout, False)
        written, quiet = 0, 0
        while quiet < 20:  # until no buffer on the way takes more
            try:
                written += os.write(session.child_stdout, bytes(65_536))
                quiet = 0
            except BlockingIOError:
                quiet += 1
                await asyncio.sleep(0.01)
        session.end()
        await asyncio.sleep(0.1)  # longer than a grandchild's output is waited for
        received = await frames(socket)

    assert sum(len(frame) - 1 for frame in received if frame[0] == 1) == written
    assert msgspec.json.decode(received[-1][1:])["status"] == "Success"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("command=true", "you must specify at least 1 of stdin, stdout, stderr"),
        ("command=true&output=1", "Upgrade request required"),
        ("output=1", "you must specify at least 1 command"),
    ],
)
async def test_an_exec_that_asks_for_nothing_is_refused(http, runtime, query, text) -> None:
    await start(runtime)
    response = await http.post(f"/exec/ns/p/c?{query}")

    assert (response.status, await response.text()) == (400, text)


async def test_ports_of_a_pod_that_is_not_there_or_does_not_run_are_not_forwarded(http, runtime) -> None:
    runtime.lose_sandbox("sandbox1")
    upgrade = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "portforward.k8s.io"}
    answers = [await http.get(f"/portForward/ns/{name}", headers=upgrade) for name in ("p", "x")]

    assert [(each.status, await each.text()) for each in answers] == [
        (500, 'pod not found ("p_ns")'),
        (404, "pod does not exist"),
    ]


async def test_the_end_of_an_attached_container_is_no_failure_of_attach(http, runtime) -> None:
    await start(runtime)
    runtime.session = session = Session(3)
    async with (
        asyncio.timeout(60),
        http.ws_connect("/attach/ns/p/c?output=1", protocols=("v5.channel.k8s.io",)) as socket,
    ):
        os.write(session.child_stdout, b"last words")
        session.end()
        received = await frames(socket)

    assert received[1] == b"\x01last words"
    assert msgspec.json.decode(received[-1][1:]) == {"metadata": {}, "status": "Success"}


async def test_a_client_of_base64_text_is_understood(http, runtime) -> None:
    await start(runtime)
    runtime.session = session = Session(3)
    path = "/exec/ns/p/c?command=sh&input=1&output=1"
    async with asyncio.timeout(60), http.ws_connect(path, protocols=("base64.channel.k8s.io",)) as socket:
        await socket.send_str("0" + base64.b64encode(b"hello").decode())
        os.write(session.child_stdout, await asyncio.to_thread(os.read, session.child_stdin, 100))
        session.end()
        texts = [message.data async for message in socket if message.type is aiohttp.WSMsgType.TEXT]

    said = "command terminated with non-zero exit code: exit status 3"
    assert [(text[0], base64.b64decode(text[1:]).decode()) for text in texts] == [
        ("1", ""),
        ("1", "hello"),
        ("3", said),
    ]


async def test_a_client_that_leaves_ends_the_session(http, runtime, eventually) -> None:
    await start(runtime)
    runtime.session = session = Session()
    async with connect(http) as socket:
        await socket.receive_bytes()

    await eventually(lambda: session.closed)
    session.end()


async def test_a_command_that_cannot_be_run_is_an_internal_error_on_the_error_channel(http, runtime) -> None:
    await start(runtime)
    runtime.session = cri.RuntimeServiceError("ExecError", "executable file not found in $PATH")
    async with connect(http) as socket:
        _, frame = await frames(socket)

    assert msgspec.json.decode(frame[1:])["message"].endswith("executable file not found in $PATH")


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/exec/ns/p/c?command=true&output=1", 500, 'container not found ("c")'),
        ("/attach/ns/p/c?output=1", 500, "container c not found in pod p_ns"),
        ("/containerLogs/ns/p/c", 400, 'container "c" in pod "p" is waiting to start: PodInitializing'),
        ("/containerLogs/ns/p/c?previous=true", 400, 'previous terminated container "c" in pod "p" not found'),
        ("/containerLogs/x/y/z", 404, 'pod "y" does not exist'),
        ("/containerLogs/ns/p/c?tailLines=-1", 400, "tailLines: Invalid value: '-1': must be greater than or equal to 0"),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_said_in_the_kubelets_words(http, path, code, text) -> None:
    response = await http.get(path)

    assert (response.status, await response.text()) == (code, text)


async def test_logs_of_a_run_and_of_the_one_before(http, runtime, tmp_path) -> None:
    for attempt, word in enumerate((b"old", b"new")):
        container = await runtime.create_container("sandbox1", cri.ContainerConfig("c", attempt, "i"))
        await runtime.start_container(container)
        runtime.exit(container, 0)
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / f"c/{attempt}.log").write_bytes(b"2023-11-14T22:13:20Z stdout F " + word + b"\n")

    assert await (await http.get("/containerLogs/ns/p/c")).text() == "new\n"
    assert await (await http.get("/containerLogs/ns/p/c?previous=true")).text() == "old\n"
    assert await (await http.get("/containerLogs/ns/p/c?follow=true")).text() == "new\n"


async def test_pods_are_listed_with_their_status(http) -> None:
    listed = await (await http.get("/pods")).json()

    assert listed["items"][0]["metadata"]["name"] == "p"
    assert listed["items"][0]["status"]["containerStatuses"]


async def test_without_a_masters_certificate_nothing_is_answered(runtime, tmp_path) -> None:
    server = Server(Node(tmp_path), runtime, FileWatcher(), ManualClock())
    async with test_utils.TestClient(test_utils.TestServer(server.application(check_client=True))) as client:
        assert (await client.get("/pods")).status == 403
