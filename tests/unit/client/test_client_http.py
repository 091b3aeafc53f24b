"""The HTTP transport against a server on a socket of its own."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from minikube_raw.api.status import StatusError, expired
from minikube_raw.client.http import HTTPTransport
from minikube_raw.client.transport import Request


@pytest.fixture
async def server():
    """Yield (start, seen): start(handler) returns a transport to it, seen collects the requests."""
    runners, transports, seen = [], [], []

    async def start(handler):
        async def note(request):
            seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))
            return await handler(request)

        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", note)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        runners.append(runner)
        port = runner.addresses[0][1]
        transports.append(HTTPTransport(f"http://127.0.0.1:{port}/", token="secret"))
        return transports[-1]

    yield start, seen
    for transport in transports:
        await transport.close()
    for runner in runners:
        await runner.cleanup()


async def test_a_request_arrives_as_it_was_meant_and_its_answer_comes_back(server):
    start, seen = server
    transport = await start(
        lambda request: asyncio.sleep(0, web.Response(status=409, body=b"{}", content_type="application/json"))
    )
    request = Request(
        "PATCH",
        "/api/v1/pods",
        {"labelSelector": ("a in (b,c)",), "command": ("x", "y z")},
        b"[]",
        "application/json-patch+json",
    )
    response = await transport.request(request)
    assert (response.code, response.body, response.content_type) == (409, b"{}", "application/json")
    method, path, headers, body = seen[0]
    assert (method, body) == ("PATCH", b"[]")
    assert path == "/api/v1/pods?labelSelector=a+in+(b,c)&command=x&command=y+z"
    assert headers["Content-Type"] == "application/json-patch+json"
    assert headers["Authorization"] == "Bearer secret"


async def test_watch_frames_come_whole_however_the_bytes_arrive(server):
    big = json.dumps({"x": "y" * 300_000}).encode()

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b'{"a"', b":1}\n{", b'"b":2}\n\n' + big[:1000], big[1000:], b"\n"):
            await response.write(piece)
        return response

    start, _ = server
    transport = await start(stream)
    frames = [frame async for frame in transport.watch(Request("GET", "/api/v1/pods"))]
    assert frames == [b'{"a":1}', b'{"b":2}', big]


async def test_a_refused_watch_raises_what_the_server_said(server):
    start, _ = server
    transport = await start(lambda request: asyncio.sleep(0, web.Response(status=410, body=expired().to_json())))
    with pytest.raises(StatusError) as raised:
        async for _ in transport.watch(Request("GET", "/api/v1/pods")):
            pass
    assert (raised.value.code, raised.value.reason) == (410, "Expired")


async def test_a_connection_that_breaks_is_an_os_error(server):
    async def hang_up(request):
        request.transport.abort()
        return web.Response()

    start, _ = server
    transport = await start(hang_up)
    with pytest.raises(OSError):
        await transport.request(Request("GET", "/"))
    with pytest.raises(OSError):
        async for _ in transport.watch(Request("GET", "/")):
            pass


async def test_no_server_is_an_os_error():
    transport = HTTPTransport("http://127.0.0.1:1")
    with pytest.raises(OSError):
        await transport.request(Request("GET", "/"))
    await transport.close()
