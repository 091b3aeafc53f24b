"""One run of each kind of probe against real servers on loopback: what it sends, what it takes for success, what it says."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import msgspec
import pytest
from pod_builders import pod

from minikube_raw.api.containers import LifecycleHandler
from minikube_raw.api.core import Container, Probe
from minikube_raw.apiserver.pki import issue, make_ca
from minikube_raw.kubelet import hooks, probe_actions, probe_http
from minikube_raw.kubelet.probes import Outcome, Result

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HERE = "127.0.0.1"


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a port of its own."""

    async def close_after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(close_after, HERE, 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


def answering(text: str, seen: list[str] | None = None, then: str = "") -> Handler:
    """Answers the first request with `text`, all others with `then` (or the same)."""
    answers = [text]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        if seen is not None:
            seen.append(request)
        writer.write(answers[0].replace("PORT", str(writer.get_extra_info("sockname")[1])).encode())
        answers[0] = then or text
        await writer.drain()

    return handler


def reply(status: int, body: str = "ok", **headers: str) -> str:
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", body])


async def run(container: Container | None = None, timeout: int = 1, **handler: Any) -> Result:
    probe = msgspec.convert({"timeoutSeconds": timeout, **handler}, Probe)
    asked = probe_actions.Asked(pod(), container or Container(name="c"), "c1", HERE)
    return await probe_actions.run(None, asked, probe)  # type: ignore[arg-type]


async def test_a_get_says_who_it_is_and_carries_the_given_headers() -> None:
    seen: list[str] = []
    headers = [{"name": "X-A", "value": "b"}, {"name": "Accept", "value": ""}, {"name": "Host", "value": "web.example"}]
    async with serving(answering(reply(200, "fine"), seen)) as port:
        result = await run(httpGet={"port": port, "path": "ok?a=b", "httpHeaders": headers})

    assert result == Result(Outcome.SUCCESS, "fine")
    assert seen == [
        "GET /ok?a=b HTTP/1.1\r\nUser-Agent: kube-probe/1.36\r\nX-A: b\r\nHost: web.example\r\nConnection: close\r\n\r\n"
    ]


@pytest.mark.parametrize(
    ("status", "outcome", "output"),
    [
        pytest.param(204, Outcome.SUCCESS, "", id="204"),
        pytest.param(304, Outcome.WARNING, "Probe terminated redirects, Response body: ", id="304"),
        pytest.param(404, Outcome.FAILURE, "HTTP probe failed with statuscode: 404", id="404"),
        pytest.param(500, Outcome.FAILURE, "HTTP probe failed with statuscode: 500", id="500"),
    ],
)
async def test_success_is_from_200_to_399(status: int, outcome: Outcome, output: str) -> None:
    async with serving(answering(reply(status))) as port:
        assert await run(httpGet={"port": port}) == Result(outcome, output)


async def test_a_redirect_within_the_host_is_followed_one_to_elsewhere_is_a_warning() -> None:
    within = answering(reply(302, Location="http://127.0.0.1:PORT/next"), then=reply(200, "there"))
    async with serving(within) as port:
        assert await run(httpGet={"port": port}) == Result(Outcome.SUCCESS, "there")
    async with serving(answering(reply(302, "gone", Location="http://192.0.2.1/x"))) as port:
        result = await run(httpGet={"port": port})
    assert result == Result(Outcome.WARNING, "Probe terminated redirects, Response body: gone")


@pytest.mark.parametrize(
    ("location", "host"),
    [
        pytest.param("/next", "web.example", id="a path alone keeps it"),
        pytest.param("http://127.0.0.1:PORT/next", "127.0.0.1:PORT", id="an address goes before it"),
    ],
)
async def test_a_host_header_outlives_a_redirect_that_names_no_host(location: str, host: str) -> None:
    seen: list[str] = []
    async with serving(answering(reply(302, Location=location), seen, then=reply(200))) as port:
        await run(httpGet={"port": port, "httpHeaders": [{"name": "Host", "value": "web.example"}]})

    assert f"\r\nHost: {host.replace('PORT', str(port))}\r\n" in seen[1]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        pytest.param("/a b/ä?q=ü x", "/a%20b/%C3%A4?q=%C3%BC%20x", id="text is escaped"),
        pytest.param("/a%20b?x=1&y=[2]", "/a%20b?x=1&y=[2]", id="once"),
        pytest.param("/a#b", "/a", id="what is for browsers is not sent"),
        pytest.param("/a HTTP/1.1\r\nX-Evil: 1", "/a%20HTTP/1.1%0D%0AX-Evil:%201", id="nor a header"),
    ],
)
async def test_a_path_of_any_text_is_one_that_a_request_can_carry(path: str, sent: str) -> None:
    seen: list[str] = []
    async with serving(answering(reply(200), seen)) as port:
        await run(httpGet={"port": port, "path": path})

    assert seen[0].partition("\r\n")[0] == f"GET {sent} HTTP/1.1"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", id="chunks"),
        pytest.param("HTTP/1.1 204 No Content\r\n\r\n", "", id="no content"),
        pytest.param(f"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{reply(200, 'late')}", "late", id="hints before it"),
    ],
)  # fmt: skip
async def test_an_answer_ends_where_it_says_though_the_connection_stays(answer: str, body: str) -> None:
    over = asyncio.Event()

    async def keeps_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer.encode())
        await over.wait()

    async with serving(keeps_open) as port:
        assert await run(httpGet={"port": port}) == Result(Outcome.SUCCESS, body)
        over.set()


async def test_an_answer_that_breaks_off_is_a_failure() -> None:
    async with serving(answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")) as port:
        assert await run(httpGet={"port": port}) == Result(Outcome.FAILURE, "unexpected EOF")


async def test_redirects_in_a_circle_end() -> None:
    async with serving(answering(reply(301, Location="/again"))) as port:
        result = await run(httpGet={"port": port})

    assert result == Result(Outcome.FAILURE, f'Get "http://127.0.0.1:{port}/again": stopped after 10 redirects')


async def test_ten_kibibytes_of_an_endless_body_are_enough() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()

    async with serving(endless) as port:
        assert await run(httpGet={"port": port}) == Result(Outcome.SUCCESS, "x" * probe_http.MAX_BODY)


async def test_a_certificate_is_not_verified(tmp_path: Path) -> None:
    pair = issue(make_ca("someone"), "elsewhere", sans=["elsewhere"])
    (tmp_path / "both.pem").write_bytes(pair.key + pair.certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "both.pem")

    async with serving(answering(reply(200)), context) as port:
        assert (await run(httpGet={"port": port, "scheme": "HTTPS"})).outcome is Outcome.SUCCESS


async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(reply(400).encode())


async def test_https_to_a_plain_server_is_named() -> None:
    async with serving(plain) as port:
        result = await run(httpGet={"port": port, "scheme": "HTTPS"})

    text = f'Get "https://127.0.0.1:{port}/": http: server gave HTTP response to HTTPS client'
    assert result == Result(Outcome.FAILURE, text)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        pytest.param(
            silent, "context deadline exceeded (Client.Timeout exceeded while awaiting headers)", id="silence"
        ),
        pytest.param(closing, "EOF", id="a closed connection"),
        pytest.param(
            answering("SSH-2.0-x\r\n"),
            'net/http: HTTP/1.x transport connection broken: malformed HTTP response "SSH-2.0-x"',
            id="another protocol",
        ),
    ],
)
async def test_no_answer_is_a_failure_in_gos_words(handler: Handler, words: str) -> None:
    async with serving(handler) as port:
        assert await run(httpGet={"port": port}) == Result(Outcome.FAILURE, f'Get "http://127.0.0.1:{port}/": {words}')


async def free_port() -> int:
    async with serving(silent) as port:
        return port


async def test_a_refused_connection_is_a_failure() -> None:
    port = await free_port()

    refused = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert await run(tcpSocket={"port": port}) == Result(Outcome.FAILURE, refused)
    assert await run(httpGet={"port": port, "path": "/x"}) == Result(
        Outcome.FAILURE, f'Get "http://127.0.0.1:{port}/x": {refused}'
    )
    assert await run(grpc={"port": port}) == Result(
        Outcome.FAILURE,
        f'timeout: failed to connect service "127.0.0.1:{port}" within 1s: context deadline exceeded',
    )


async def test_a_port_may_be_named() -> None:
    async with serving(silent) as port:
        named = msgspec.convert({"name": "c", "ports": [{"name": "web", "containerPort": port}]}, Container)

        assert (await run(named, tcpSocket={"port": "web"})).outcome is Outcome.SUCCESS
        assert await run(named, tcpSocket={"port": "nope"}) == Result(
            Outcome.UNKNOWN, 'couldn\'t find port: "nope" in container "c"'
        )


def health(trailers: dict[str, str], body: bytes, seen: list[Any]) -> Handler:
    """A gRPC server that answers each call with a message and trailers."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(1 << 16):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived | h2.events.DataReceived):
                    seen.append(dict(event.headers) if isinstance(event, h2.events.RequestReceived) else event.data)
                if isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
                    if body:
                        connection.send_data(1, b"\0" + len(body).to_bytes(4, "big") + body)
                    connection.send_headers(1, list(trailers.items()), end_stream=True)
            writer.write(connection.data_to_send())

    return handler


@pytest.mark.parametrize(
    ("trailers", "body", "outcome", "output"),
    [
        pytest.param({"grpc-status": "0"}, b"\x08\x01", Outcome.SUCCESS, "service healthy", id="SERVING"),
        pytest.param(
            {"grpc-status": "0"}, b"\x08\x02", Outcome.FAILURE, 'service unhealthy (responded with "NOT_SERVING")',
            id="NOT_SERVING",
        ),
        pytest.param(
            {"grpc-status": "5", "grpc-message": "unknown service"}, b"", Outcome.FAILURE,
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service", id="unknown service",
        ),
        pytest.param(
            {"grpc-status": "12", "grpc-message": "no"}, b"", Outcome.FAILURE,
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no",
            id="not implemented",
        ),
    ],
)  # fmt: skip
async def test_a_grpc_service_is_asked_for_its_health(trailers, body, outcome, output) -> None:
    seen: list[Any] = []
    async with serving(health(trailers, body, seen)) as port:
        result = await run(grpc={"port": port, "service": "live"})

    assert result == Result(outcome, output)
    assert (seen[0][":path"], seen[0]["user-agent"]) == ("/grpc.health.v1.Health/Check", "kube-probe/1.36")
    assert seen[1] == b"\0\0\0\0\x06\x0a\x04live"


async def test_grpc_to_a_server_that_speaks_something_else_times_out() -> None:
    async with serving(silent) as port:
        result = await run(grpc={"port": port})

    text = f'timeout: failed to connect service "127.0.0.1:{port}" within 1s: context deadline exceeded'
    assert result == Result(Outcome.FAILURE, text)


async def test_a_hook_tells_a_server_without_tls_nothing_that_was_meant_for_one_with_it() -> None:
    seen: list[str] = []

    async def plain_alone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1)
        if first == b"G":
            seen.append((first + await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(reply(200).encode())

    async with serving(plain_alone) as port:
        headers = [{"name": "Authorization", "value": "secret"}, {"name": "X-A", "value": "b"}]
        action = {"port": port, "scheme": "HTTPS", "httpHeaders": headers}
        handler = msgspec.convert({"httpGet": action}, LifecycleHandler)
        await hooks.run(None, None, probe_actions.Asked(pod(), Container(name="c"), "c1", HERE), handler)  # type: ignore[arg-type]

    assert "X-A: b" in seen[0]
    assert "secret" not in seen[0]
