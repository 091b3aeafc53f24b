"""pods/exec and pods/attach: the client's side checked and spoken in whatever it speaks, the kubelet's in one form.

Logs are `podlog`'s, port-forwarding is `portforward`'s, plain HTTP `httpproxy`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from minikube_raw.api import status
from minikube_raw.apiserver import podlog, portforward
from minikube_raw.apiserver.dispatch import Call
from minikube_raw.apiserver.httpproxy import HTTPProxy
from minikube_raw.apiserver.kubelets import Kubelets, Parameters, Refused
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.options import Query, first
from minikube_raw.apiserver.podlog import choose_container
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.apiserver.routes import is_true
from minikube_raw.streaming import accepting
from minikube_raw.streaming.channels import CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, Channels
from minikube_raw.streaming.wschannels import V5, WebSocketChannels


class Proxy:
    """Serves the subresources behind which a kubelet or a pod answers."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets
        self._http = HTTPProxy(kubelets)

    async def close(self) -> None:
        """Let go of the connections to pods."""
        await self._http.close()

    async def serve(self, http: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Answer a request for a pod's streams, or one to be passed on. Raises StatusError before the first byte."""
        subresource, query = call.info.subresource, call.request.query
        if subresource == "proxy":
            return await self._http.serve(http, call)
        if call.info.verb not in (("get",) if subresource == "log" else ("get", "create")):
            raise status.method_not_allowed()
        entry = await call.resource.fresh_entry(call.info.namespace, call.info.name)
        pod = decode(entry.stored)
        if subresource == "log":
            return await podlog.serve(self._kubelets, http, pod, query)
        if subresource == "portforward":
            return await portforward.serve(self._kubelets, http, pod, query)
        return await self._interactive(http, pod, subresource, query)

    async def _interactive(self, http: web.BaseRequest, pod: Object, verb: str, query: Query) -> web.StreamResponse:
        container = choose_container(pod, first(query, "container"), "choose one of")
        if not pod["spec"].get("nodeName"):
            raise status.bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        wanted = {name: is_true(query.get(name, ())) for name in ("stdin", "stdout", "stderr", "tty")}
        accepting.check(http, wanted)
        try:
            kubelet = await self._kubelets.stream(pod, verb, container, _parameters(wanted, query))
        except Refused as refused:
            # No Status: clients show the kubelet's own words (`unable to upgrade connection: container not found ("c")`).
            return web.Response(status=refused.code, text=refused.text + "\n")
        async with kubelet:
            try:
                channels = await accepting.accept(http, wanted)
            except ConnectionError:
                return web.Response()  # to nobody: the client has gone
            await bridge(channels, kubelet)
            return channels.response


def _parameters(wanted: Mapping[str, bool], query: Query) -> Parameters:
    """Return the kubelet's parameters, which calls the streams by other names than the API does."""
    names = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    flags = [(names[name], "1") for name, on in wanted.items() if on]
    return [*(("command", word) for word in query.get("command", ())), *flags]


async def bridge(client: Channels, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    """Copy messages both ways until the kubelet says how it ended or either side goes; then end the other."""
    forth = asyncio.create_task(_to_kubelet(client, kubelet))
    back = asyncio.create_task(_to_client(client, kubelet))
    try:
        await asyncio.wait((forth, back), return_when=asyncio.FIRST_COMPLETED)
        if back.done() and back.exception() is None:
            await client.finish(_as_told_over(client, back.result()))
    finally:
        for task in (forth, back):
            task.cancel()
        await asyncio.gather(forth, back, return_exceptions=True)
        await kubelet.close()


def _as_told_over(client: Channels, final: bytes) -> bytes:
    """Return the final status as Kubernetes' API server tells it: over v5.channel.k8s.io it wraps an error that is no exit code
    once more (apiserver pkg/util/proxy, streamtranslator.go).
    """
    if not (isinstance(client, WebSocketChannels) and client.protocol == V5):
        return final
    told = msgspec.json.decode(final, type=dict[str, Any])
    if told.get("reason") != "InternalError":
        return final
    return msgspec.json.encode(status.internal_error(told["message"]).to_dict())


async def _to_kubelet(client: Channels, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    """Return when the client has gone."""
    while (message := await client.receive()) is not None:
        if message.channel in (STDIN, RESIZE, CLOSE):
            await kubelet.send_bytes(bytes([message.channel]) + message.data)


async def _to_client(client: Channels, kubelet: aiohttp.ClientWebSocketResponse) -> bytes:
    """Return the final status."""
    async for message in kubelet:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == ERROR:
            return bytes(data)
        if channel in (STDOUT, STDERR):
            await client.send(channel, data)
    lost = status.internal_error("the connection to the kubelet was lost")
    return msgspec.json.encode(lost.to_dict())
