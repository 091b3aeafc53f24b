"""Debian's kubectl, which knows nothing but SPDY/3.1, against the server's side of exec over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pty
import signal
import ssl
import struct
import termios
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import uvloop
from aiohttp import web

from minikube_raw.apiserver.pki import issue, make_ca
from minikube_raw.streaming import spdysession
from minikube_raw.streaming.channels import CLOSE, RESIZE, STDERR, STDIN, STDOUT
from minikube_raw.streaming.spdyexec import SpdyChannels
from minikube_raw.streaming.spdyupgrade import wants_spdy

KUBECTL = Path(__file__).parents[3] / ".cache/kubernetes-client/usr/bin/kubectl"
SUCCESS = b'{"status":"Success"}'
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "box", "namespace": "default"},
    "spec": {"containers": [{"name": "main", "image": "busybox"}]},
    "status": {"phase": "Running"},
}
RESOURCES = [
    {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]},
    {"name": "pods/exec", "singularName": "", "namespaced": True, "kind": "PodExecOptions", "verbs": ["create"]},
]
DOCUMENTS: dict[str, Any] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": RESOURCES},
    "/api/v1/namespaces/default/pods/box": POD,
}

Command = Callable[[SpdyChannels], Awaitable[bytes]]


class Exec:
    """An API of one pod, whose commands are coroutines."""

    def __init__(self, home: Path, runner: asyncio.Runner) -> None:
        self.home = home
        self.run = runner.run
        self.url = ""
        self.commands: dict[str, Command] = {}
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    async def listen(self, context: ssl.SSLContext) -> asyncio.Server:
        self.server = web.Server(self.handle, handler_cancellation=True)
        listening = await asyncio.get_running_loop().create_server(self.server, "127.0.0.1", 0, ssl=context)
        self.url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        return listening

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        if not wants_spdy(http):
            return web.json_response(DOCUMENTS.get(http.path, {}), status=200 if http.path in DOCUMENTS else 404)
        query = http.rel_url.query
        numbers = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "tty": RESIZE}
        expected = frozenset(numbers[name] for name in numbers if query.get(name) == "true")
        channels = await SpdyChannels.accept(http, expected - {STDERR} if RESIZE in expected else expected)
        self.started.set()
        try:
            await channels.finish(await self.commands[query["command"]](channels))
        except ConnectionError:
            pass
        finally:
            self.ended.set()
        return channels.response

    def arguments(self, *arguments: str) -> list[str]:
        # Without a token kubectl asks the terminal for a name and a password.
        where = (f"--server={self.url}", f"--certificate-authority={self.home}/ca.crt", "--token=any")
        return [str(KUBECTL), *where, *arguments]

    def kubectl(self, *arguments: str, stdin: bytes | None = None) -> Done:
        return self.run(self.finished(*arguments, input=stdin))

    async def finished(self, *arguments: str, stdin: int = PIPE, input: bytes | None = None) -> Done:
        process = await self.start(*arguments, stdin=stdin)
        out, error = await asyncio.wait_for(process.communicate(input), 10)
        assert process.returncode is not None
        return Done(process.returncode, out, error)

    async def no_connections(self) -> None:
        """Return when aiohttp's server has forgotten every connection."""
        async with asyncio.timeout(60):
            while self.server.connections:  # noqa: ASYNC110 -- the server has no event for it
                await asyncio.sleep(0.005)

    async def start(
        self, *arguments: str, stdin: int = PIPE, stdout: int = PIPE, stderr: int = PIPE
    ) -> asyncio.subprocess.Process:
        environment = {"HOME": str(self.home), "PATH": os.defpath}
        command = self.arguments(*arguments)
        return await asyncio.create_subprocess_exec(
            *command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment
        )


class Done(NamedTuple):
    code: int
    out: bytes
    error: bytes


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Exec]:
    """Both loops, for each has its own TLS and its own way to exchange a transport's protocol."""
    if not KUBECTL.exists():
        pytest.skip("Debian's kubectl is not unpacked (scripts/setup test)")
    with asyncio.Runner(loop_factory=request.param) as runner:
        served = Exec(tmp_path, runner)
        listening = runner.run(served.listen(_tls(tmp_path)))
        yield served
        listening.close()
        runner.run(served.server.shutdown(1))


def _tls(directory: Path) -> ssl.SSLContext:
    ca = make_ca()
    pair = issue(ca, "kubernetes", sans=["127.0.0.1"])
    (directory / "ca.crt").write_bytes(ca.pem)
    (directory / "server.crt").write_bytes(pair.certificate)
    (directory / "server.key").write_bytes(pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.crt", directory / "server.key")
    return context


async def cat(channels: SpdyChannels) -> bytes:
    while (message := await channels.receive()) is not None:
        if message == (CLOSE, bytes([STDIN])):
            return SUCCESS
        await channels.send(STDOUT, message.data)
    raise ConnectionResetError


def test_output_and_errors_come_on_their_own_streams(api: Exec) -> None:
    async def speak(channels: SpdyChannels) -> bytes:
        await channels.send(STDOUT, b"out\n")
        await channels.send(STDERR, b"error\n")
        return SUCCESS

    api.commands["speak"] = speak
    assert api.kubectl("exec", "box", "--", "speak") == (0, b"out\n", b"error\n")


def test_long_output_is_complete_however_fast_it_ends(api: Exec) -> None:
    data = os.urandom(4 << 20)

    async def pour(channels: SpdyChannels) -> bytes:
        await channels.send(STDOUT, data)
        return SUCCESS

    api.commands["pour"] = pour
    done = api.kubectl("exec", "box", "--", "pour")
    assert (done.code, hashlib.sha256(done.out).digest()) == (0, hashlib.sha256(data).digest())


def test_stdin_goes_through_to_its_end_and_comes_back(api: Exec) -> None:
    data = os.urandom(1 << 20)
    api.commands["cat"] = cat
    done = api.kubectl("exec", "-i", "box", "--", "cat", stdin=data)
    assert (done.code, hashlib.sha256(done.out).digest()) == (0, hashlib.sha256(data).digest())


def test_the_exit_code_is_kubectls(api: Exec) -> None:
    async def fail(channels: SpdyChannels) -> bytes:
        causes = [{"reason": "ExitCode", "message": "7"}]
        return msgspec.json.encode({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}})

    api.commands["fail"] = fail
    done = api.kubectl("exec", "box", "--", "fail")
    assert (done.code, done.error) == (7, b"command terminated with exit code 7\n")


def test_a_command_that_leaves_its_stdin_unread_ends_at_once(api: Exec) -> None:
    async def ignore(channels: SpdyChannels) -> bytes:
        await channels.receive()
        return SUCCESS

    api.commands["ignore"] = ignore
    with open("/dev/zero", "rb") as endless:
        assert api.run(api.finished("exec", "-i", "box", "--", "ignore", stdin=endless.fileno())).code == 0
    api.run(api.no_connections())


def test_a_terminal_tells_its_size_and_every_change_of_it(api: Exec) -> None:
    sizes: asyncio.Queue[bytes] = asyncio.Queue()

    async def watch_size(channels: SpdyChannels) -> bytes:
        while (message := await channels.receive()) is not None:
            if message.channel == RESIZE:
                sizes.put_nowait(message.data)
            elif message.data == b"q":
                return SUCCESS
        raise ConnectionResetError

    async def resize_and_quit() -> int:
        process = await api.start("exec", "-it", "box", "--", "size", stdin=end, stdout=end, stderr=end)
        assert await _next(sizes) == {"Width": 80, "Height": 24}
        _set_size(end, rows=50, columns=132)
        process.send_signal(signal.SIGWINCH)
        assert await _next(sizes) == {"Width": 132, "Height": 50}
        os.write(terminal, b"q")
        return await asyncio.wait_for(process.wait(), 5)

    api.commands["size"] = watch_size
    with _terminal(rows=24, columns=80) as (terminal, end):
        assert api.run(resize_and_quit()) == 0


async def _next(sizes: asyncio.Queue[bytes]) -> Any:
    return msgspec.json.decode(await asyncio.wait_for(sizes.get(), 5))


@contextlib.contextmanager
def _terminal(*, rows: int, columns: int) -> Iterator[tuple[int, int]]:
    terminal, end = pty.openpty()
    _set_size(end, rows=rows, columns=columns)
    try:
        yield terminal, end
    finally:
        os.close(terminal)
        os.close(end)


def _set_size(fd: int, *, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_a_client_that_vanishes_ends_what_it_began(api: Exec) -> None:
    async def vanish() -> None:
        process = await api.start("exec", "-i", "box", "--", "cat")
        await asyncio.wait_for(api.started.wait(), 60)
        process.kill()
        await asyncio.wait_for(api.ended.wait(), 5)
        await process.communicate()

    api.commands["cat"] = cat
    api.run(vanish())
    api.run(api.no_connections())


def test_a_client_is_missed_even_while_its_input_is_not_read(api: Exec, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing that is sent to us can tell, for we do not read: the pings have to.
    monkeypatch.setattr(spdysession, "PING_SECONDS", 0.02)

    async def stall(channels: SpdyChannels) -> bytes:
        await asyncio.Event().wait()
        return SUCCESS

    async def vanish(endless: int) -> None:
        process = await api.start("exec", "-i", "box", "--", "stall", stdin=endless)
        await asyncio.wait_for(api.started.wait(), 60)
        process.kill()
        await process.communicate()
        await asyncio.wait_for(api.ended.wait(), 60)
        await api.no_connections()

    api.commands["stall"] = stall
    with open("/dev/zero", "rb") as endless:
        api.run(vanish(endless.fileno()))


def test_a_client_is_missed_that_was_through_with_its_input_before_it_vanished(
    api: Exec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its end has come, behind more than we have read.
    monkeypatch.setattr(spdysession, "PING_SECONDS", 0.02)
    unread = asyncio.Event()

    async def stall(channels: SpdyChannels) -> bytes:
        while channels._session._reading:  # noqa: ASYNC110 -- no event tells that the transport is not read any more
            await asyncio.sleep(0.005)
        unread.set()
        await asyncio.Event().wait()
        return SUCCESS

    async def vanish() -> None:
        process = await api.start("exec", "-i", "box", "--", "stall")
        assert process.stdin is not None
        process.stdin.write(bytes(spdysession.UNREAD_BYTES + 40_000))
        await asyncio.wait_for(unread.wait(), 60)
        process.kill()
        await process.communicate()
        await asyncio.wait_for(api.ended.wait(), 60)
        await api.no_connections()

    api.commands["stall"] = stall
    api.run(vanish())
