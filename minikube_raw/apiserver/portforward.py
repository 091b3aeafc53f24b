"""pods/portforward: bytes between a client and the kubelet, in the protocol they agree on. Nothing inside is looked at.

kubectl before 1.31 speaks SPDY/3.1, newer ones put the same bytes into the messages of a WebSocket
(`SPDY/3.1+portforward.k8s.io`), other clients speak Kubernetes' channels over WebSocket. The first two reach the kubelet as
SPDY/3.1, the third as it is. Source: k8s.io/apiserver pkg/util/proxy (streamtunnel), k8s.io/kubelet pkg/cri/streaming/portforward.
"""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import WSMsgType, web

from minikube_raw.api import status
from minikube_raw.apiserver.kubelets import Kubelets, Refused
from minikube_raw.apiserver.options import Query
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.streaming import hijack, spdyupgrade, upgrading
from minikube_raw.streaming.portchannels import PROTOCOLS
from minikube_raw.streaming.upgrading import CHUNK_BYTES, Upgraded

TUNNEL_PREFIX = "SPDY/3.1+"
_WEBSOCKET_PROTOCOLS = "Sec-WebSocket-Protocol"


async def serve(kubelets: Kubelets, http: web.BaseRequest, pod: Object, query: Query) -> web.StreamResponse:
    """Answer a request to forward ports. Raises StatusError before the first byte."""
    if not pod["spec"].get("nodeName"):
        raise status.bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    try:
        if spdyupgrade.wants_spdy(http):
            return await _bytes(kubelets, http, pod)
        if http.headers.get("Upgrade", "").lower() != "websocket":
            raise status.bad_request("Upgrade request required")
        if tunnelled := _tunnelled(http):
            return await _tunnel(kubelets, http, pod, tunnelled)
        return await _messages(kubelets, http, pod, query)
    except Refused as refused:
        # No Status: clients show the kubelet's own words (`unable to upgrade connection: pod not found …`).
        return web.Response(status=refused.code, text=refused.text + "\n")


def _tunnelled(http: web.BaseRequest) -> list[str]:
    """Return the SPDY subprotocols that a client offers to speak inside of a WebSocket."""
    offered = [each.strip() for each in http.headers.get(_WEBSOCKET_PROTOCOLS, "").split(",")]
    return [each.removeprefix(TUNNEL_PREFIX) for each in offered if each.startswith(TUNNEL_PREFIX)]


async def _spdy(kubelets: Kubelets, pod: Object, protocols: list[str]) -> Upgraded:
    headers = {"Connection": "Upgrade", "Upgrade": spdyupgrade.SPDY}
    if protocols:
        headers[spdyupgrade.PROTOCOL_HEADER] = ", ".join(protocols)
    return await kubelets.upgrade(pod, "portForward", headers)


async def _bytes(kubelets: Kubelets, http: web.BaseRequest, pod: Object) -> web.StreamResponse:
    """SPDY/3.1 on both sides."""
    kubelet = await _spdy(kubelets, pod, http.headers.getall(spdyupgrade.PROTOCOL_HEADER, []))
    agreed = kubelet.headers.get(spdyupgrade.PROTOCOL_HEADER.lower())
    head = hijack.switching_protocols(spdyupgrade.SPDY, {spdyupgrade.PROTOCOL_HEADER: agreed} if agreed else {})
    try:
        client = hijack.take_bytes(http, head)
    except ConnectionError:
        kubelet.writer.close()
        return web.Response()  # to nobody: the client has gone
    await upgrading.relay(client, (kubelet.reader, kubelet.writer))
    return hijack.Switched()


async def _tunnel(kubelets: Kubelets, http: web.BaseRequest, pod: Object, protocols: list[str]) -> web.StreamResponse:
    """SPDY/3.1 inside a WebSocket on the client's side, where messages have no meaning but their bytes."""
    kubelet = await _spdy(kubelets, pod, protocols)
    agreed = kubelet.headers.get(spdyupgrade.PROTOCOL_HEADER.lower(), "")
    client = web.WebSocketResponse(protocols=[TUNNEL_PREFIX + agreed], max_msg_size=0)
    try:
        await client.prepare(http)
        forth = asyncio.create_task(_unwrapped(client, kubelet.writer))
        back = asyncio.create_task(_wrapped(kubelet.reader, client))
        await _first_of(forth, back)
    finally:
        kubelet.writer.close()
    await client.close()
    return client


async def _unwrapped(client: web.WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    async for message in client:
        if message.type is WSMsgType.BINARY:
            writer.write(message.data)
            await writer.drain()


async def _wrapped(reader: asyncio.StreamReader, client: web.WebSocketResponse) -> None:
    while data := await reader.read(CHUNK_BYTES):
        await client.send_bytes(data)


async def _messages(kubelets: Kubelets, http: web.BaseRequest, pod: Object, query: Query) -> web.StreamResponse:
    """Channels over WebSocket on both sides."""
    offered = [each.strip() for each in http.headers.get(_WEBSOCKET_PROTOCOLS, "").split(",")]
    protocols = [each for each in offered if each in PROTOCOLS]
    ports = [("port", port) for value in query.get("ports", ()) for port in value.split(",")]
    async with await kubelets.port_forward(pod, protocols, ports) as kubelet:
        client = web.WebSocketResponse(protocols=[kubelet.protocol] if kubelet.protocol else (), max_msg_size=0)
        await client.prepare(http)
        forth = asyncio.create_task(_passed_on(client, kubelet))
        back = asyncio.create_task(_passed_on(kubelet, client))
        await _first_of(forth, back)
    await client.close()
    return client


async def _passed_on(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type is WSMsgType.TEXT:
            await target.send_str(message.data)


async def _first_of(*ways: asyncio.Task[None]) -> None:
    """Return when one way has ended, which ends the other."""
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
