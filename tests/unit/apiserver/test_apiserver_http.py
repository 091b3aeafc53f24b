"""The server over TLS: identities from certificates, limits, watches on the wire, logs and exec through a kubelet's TLS."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from served_api import CORE, config_map, pod
from served_https import Served, context, kubelet_of

from minikube_raw.apiserver import http, pki


async def test_a_client_without_certificate_gets_a_status_not_an_alert(served: Served) -> None:
    connector = aiohttp.TCPConnector(ssl=context(served.pki, None))
    async with aiohttp.ClientSession(connector=connector) as nobody:
        async with nobody.get(f"{served.url}/api/v1/pods") as refused:
            assert refused.status == 401
            assert (await refused.json())["reason"] == "Unauthorized"
        async with nobody.get(f"{served.url}/healthz") as health:
            assert (health.status, await health.text()) == (200, "ok")


async def test_a_certificate_of_the_cluster_without_rights_is_forbidden(served: Served) -> None:
    pair = pki.client_files(served.pki, "jane", "jane", ("developers",))
    connector = aiohttp.TCPConnector(ssl=context(served.pki, pair))
    async with aiohttp.ClientSession(connector=connector) as jane, jane.get(f"{served.url}/api/v1/pods") as refused:
        assert refused.status == 403
        assert (await refused.json())["message"].startswith('pods is forbidden: User "jane" cannot list')


async def test_a_client_is_handed_no_tickets_that_none_comes_back_with(served: Served) -> None:
    port = int(served.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context(served.pki, served.pki.admin))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")  # whatever a handshake ends with has come by now
    assert not writer.get_extra_info("ssl_object").session.has_ticket
    writer.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_three_megabytes_is_refused(served: Served, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * (1 << 20)

    body: Any = pieces() if chunked else io.BytesIO(b"x" * (http.MAX_BODY + 1))
    async with served.client.post(f"{served.url}{CORE}configmaps", data=body) as refused:
        assert refused.status == 413
        assert (await refused.json())["message"] == "Request entity too large: limit is 3145728"
    async with served.client.get(f"{served.url}/healthz") as health:
        assert health.status == 200


async def test_warnings_come_one_header_each(served: Served) -> None:
    wish = {**config_map("a"), "foo": 1, "bar": 2}
    async with served.client.post(f"{served.url}{CORE}configmaps", json=wish) as answer:
        assert answer.headers.getall("Warning") == [
            '299 - "unknown field \\"foo\\""',
            '299 - "unknown field \\"bar\\""',
        ]


async def test_large_answers_are_compressed_for_those_who_ask(served: Served) -> None:
    await served.api.create(CORE + "configmaps", config_map("big", {"k": "v" * (200 << 10)}))
    async with served.client.get(f"{served.url}{CORE}configmaps/big") as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len((await answer.json())["data"]["k"]) == 200 << 10


async def test_a_watch_arrives_line_by_line_and_ends_with_the_server(served: Served) -> None:
    async with served.client.get(f"{served.url}{CORE}configmaps?watch=true&resourceVersion=0") as watch:
        for name in ("a", "b"):
            await served.api.create(CORE + "configmaps", config_map(name))
            event = json.loads(await asyncio.wait_for(watch.content.readline(), 5))
            assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", name)
        await served.server.stop()
        assert await asyncio.wait_for(watch.content.read(), 5) == b""


async def test_a_watcher_that_goes_is_forgotten(served: Served) -> None:
    cache = served.server.registry.core("configmaps").cache
    async with served.client.get(f"{served.url}{CORE}configmaps?watch=true&resourceVersion=0"):
        assert cache.watchers == 1
    async with asyncio.timeout(60):
        while cache.watchers:  # noqa: ASYNC110 -- the connection's end is noticed by the loop, not by an event of ours
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE"])
async def test_methods_the_api_does_not_have_are_refused(served: Served, method: str) -> None:
    async with served.client.request(method, f"{served.url}{CORE}pods") as refused:
        assert refused.status == 405


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /api HTTP/9.9\r\n\r\n",
        b"GET /api HTTP/1.1\r\n\r\n",
        b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"\x80\x2e\x01\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_a_400_and_one_line_in_the_log(
    served: Served, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    assert (await answered(served, sent)).startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert not [record for record in caplog.records if record.exc_info and record.levelno > logging.DEBUG]


async def test_a_watch_over_http_1_0_ends_with_its_connection(served: Served) -> None:
    await served.api.create(CORE + "configmaps", config_map("a"))
    path = f"{CORE}configmaps?watch=true&resourceVersion=0&timeoutSeconds=1"

    head, _, body = (await answered(served, f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.0 200 OK")
    assert [json.loads(line)["object"]["metadata"]["name"] for line in body.splitlines()] == ["a"]


async def answered(served: Served, sent: bytes) -> bytes:
    """Send bytes as the administrator and return what came until the server closed."""
    tls = context(served.pki, served.pki.admin)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.ports[0], ssl=tls)
    writer.write(sent)
    found = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return found


# --- in another's name ---

REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@pytest.mark.parametrize(
    ("headers", "name", "groups"),
    [
        ([("Impersonate-User", "jane")], "jane", ["system:authenticated"]),
        ([("Impersonate-User", "")], "kubernetes-admin", ["system:masters", "system:authenticated"]),
        (
            [("Impersonate-User", "jane"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")],
            "jane",
            ["a", "b", "system:authenticated"],
        ),
        (
            [("Impersonate-User", "system:serviceaccount:ns:sa")],
            "system:serviceaccount:ns:sa",
            ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
        ),
    ],
)
async def test_an_administrator_may_ask_as_somebody_else(
    served: Served, headers: list[tuple[str, str]], name: str, groups: list[str]
) -> None:
    async with served.client.post(served.url + REVIEWS, json={}, headers=headers) as answer:
        assert (await answer.json())["status"]["userInfo"] == {"username": name, "groups": groups}


FORBIDDEN = 'pods is forbidden: User "%s" cannot list resource "pods" in API group "" at the cluster scope'
USER_LESS = 'requested &user.DefaultInfo{Name:"", UID:"%s", Groups:%s, Extra:%s} without impersonating a user name'


@pytest.mark.parametrize(
    ("headers", "code", "message"),
    [
        ({"Impersonate-User": "jane"}, 403, FORBIDDEN % "jane"),
        ({"Impersonate-User": "system:anonymous"}, 403, FORBIDDEN % "system:anonymous"),
        ({"Impersonate-Group": "x"}, 400, USER_LESS % ("", '[]string{"x"}', "map[string][]string(nil)")),
        ({"Impersonate-Uid": "x"}, 400, USER_LESS % ("x", "[]string(nil)", "map[string][]string(nil)")),
        ({"Impersonate-Extra-Foo": "bar"}, 400, USER_LESS % ("", "[]string(nil)", 'map[string][]string{"foo":[]string{"bar"}}')),
    ],
)  # fmt: skip
async def test_in_anothers_name_one_may_do_what_the_other_may(
    served: Served, headers: dict[str, str], code: int, message: str
) -> None:
    async with served.client.get(f"{served.url}/api/v1/pods", headers=headers) as refused:
        assert (refused.status, (await refused.json())["message"]) == (code, message)


async def test_only_administrators_act_in_anothers_name(served: Served) -> None:
    pair = pki.client_files(served.pki, "jane", "jane", ())
    connector = aiohttp.TCPConnector(ssl=context(served.pki, pair))
    headers = {"Impersonate-User": "root", "Impersonate-Group": "system:masters"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as jane:
        async with jane.get(f"{served.url}/api/v1/pods") as refused:
            assert (await refused.json())["message"] == (
                'pods is forbidden: User "jane" cannot impersonate-on:user-info:list resource "pods" in API group "" '
                "at the cluster scope"
            )


# --- through a kubelet ---

CONNECTION = web.RequestKey("connection", tuple)


@pytest.fixture
async def kubelet(served: Served) -> AsyncIterator[list[web.Request]]:
    """A kubelet that answers logs with what it was asked and echoes exec's stdin; yields the requests it saw."""
    seen: list[web.Request] = []

    def note(request: web.Request) -> None:
        assert request.transport is not None
        request[CONNECTION] = request.transport.get_extra_info("peername")
        seen.append(request)

    async def logs(request: web.Request) -> web.Response:
        note(request)
        if request.match_info["container"] == "waiting":
            raise web.HTTPBadRequest(text='container "waiting" in pod "p" is waiting to start: ContainerCreating')
        return web.Response(text="one\ntwo\n")

    async def health(request: web.Request) -> web.Response:
        note(request)
        return web.Response(text="ok")

    async def echo(request: web.Request) -> web.WebSocketResponse:
        note(request)
        if request.match_info["container"] == "waiting":
            raise web.HTTPInternalServerError(text='container not found ("waiting")')
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        async for message in socket:
            if message.data[0] == 255:
                break
            await socket.send_bytes(b"\1" + message.data[1:])
        await socket.send_bytes(b'\3{"metadata":{},"status":"Success"}')
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    app.router.add_get("/healthz", health)
    app.router.add_get("/exec/{namespace}/{pod}/{container}", echo)
    async with kubelet_of(served, app):
        containers = [{"name": name, "image": "i"} for name in ("main", "waiting")]
        await served.api.create(CORE + "pods", pod("p", nodeName="n1", containers=containers))
        yield seen


async def test_logs_come_from_the_pods_node(served: Served, kubelet: list[web.Request]) -> None:
    path = f"{served.url}{CORE}pods/p/log?container=main&tailLines=2&timestamps=true"
    async with served.client.get(path) as answer:
        assert await answer.text() == "one\ntwo\n"
    assert dict(kubelet[0].query) == {"timestamps": "true", "tailLines": "2"}


WRONG = 'PodLogOptions "p" is invalid:'


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("", 400, "a container name must be specified for pod p, choose one of: [main waiting]"),
        ("?container=nope", 400, "container nope is not valid for pod p"),
        ("?container=waiting", 400, 'container "waiting" in pod "p" is waiting to start: ContainerCreating'),
        ("?container=main&tailLines=-1", 422, f"{WRONG} tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("?container=main&limitBytes=0", 422, f"{WRONG} limitBytes: Invalid value: 0: must be greater than 0"),
    ],
)  # fmt: skip
async def test_a_log_that_cannot_be_had_is_refused_in_words(
    served: Served, kubelet: list[web.Request], query: str, code: int, message: str
) -> None:
    async with served.client.get(f"{served.url}{CORE}pods/p/log{query}") as refused:
        assert refused.status == code
        assert (await refused.json())["message"] == message


@pytest.mark.parametrize(
    "protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"]
)
async def test_exec_speaks_every_channel_protocol(served: Served, kubelet: list[web.Request], protocol: str) -> None:
    url = f"{served.url}{CORE}pods/p/exec?container=main&command=cat&command=-&stdin=true&stdout=true"
    async with served.client.ws_connect(url, protocols=(protocol,)) as socket:
        assert socket.protocol == protocol
        if protocol.startswith("base64"):
            assert await socket.receive_str() == "1"
            await socket.send_str("0aGVsbG8=")
            assert await socket.receive_str() == "1aGVsbG8="
            return
        assert await socket.receive_bytes() == b"\1"
        await socket.send_bytes(b"\0hello")
        assert await socket.receive_bytes() == b"\1hello"
        if protocol.startswith("v5"):
            await socket.send_bytes(b"\xff\0")
            assert (await socket.receive_bytes())[:1] == b"\3"
    assert kubelet[0].query.getall("command") == ["cat", "-"]


async def test_a_connection_to_the_kubelet_waits_for_the_next_exec(served: Served, kubelet: list[web.Request]) -> None:
    url = f"{served.url}{CORE}pods/p/exec?container=main&command=cat&stdin=true&stdout=true"
    for _ in range(2):
        async with served.client.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
            await socket.receive_bytes()
            await asyncio.gather(*served.server._kubelets._dialling.values())
    first, spare, second = (request[CONNECTION] for request in kubelet[:3])
    assert [request.path for request in kubelet[:3:2]] == ["/exec/default/p/main"] * 2
    assert second == spare != first


async def test_a_kubelet_that_has_gone_meanwhile_is_dialled_anew(served: Served, kubelet: list[web.Request]) -> None:
    url = f"{served.url}{CORE}pods/p/exec?container=main&command=cat&stdin=true&stdout=true"
    for _ in range(2):
        async with served.client.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
            assert await socket.receive_bytes() == b"\1"
            await asyncio.gather(*served.server._kubelets._dialling.values())
        for request in kubelet:
            if request.transport is not None:
                request.transport.abort()


async def test_exec_without_upgrade_or_node_is_refused(served: Served, kubelet: list[web.Request]) -> None:
    await served.api.create(CORE + "pods", pod("nowhere"))
    async with served.client.get(f"{served.url}{CORE}pods/p/exec?container=main&command=a&stdout=true") as refused:
        assert (await refused.json())["message"] == "Upgrade request required"
    async with served.client.post(f"{served.url}{CORE}pods/nowhere/exec?command=a&stdout=true") as refused:
        assert (await refused.json())["message"] == "pod nowhere does not have a host assigned"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_kubelets_refusal_of_exec_is_passed_on_in_its_own_words(
    served: Served, kubelet: list[web.Request], method: str
) -> None:
    url = f"{served.url}{CORE}pods/p/exec?container=waiting&command=a&stdout=true"
    upgrade = "websocket" if method == "GET" else "SPDY/3.1"
    headers = {"Connection": "Upgrade", "Upgrade": upgrade}
    async with served.client.request(method, url, headers=headers) as refused:
        assert (refused.status, refused.content_type) == (500, "text/plain")
        assert await refused.text() == 'container not found ("waiting")\n'
    await asyncio.gather(*served.server._kubelets._dialling.values())
    assert [request.path for request in kubelet] == ["/exec/default/p/waiting"]  # and no connection for another
