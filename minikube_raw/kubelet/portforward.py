"""The kubelet's /portForward: who may be reached, and in which protocol a client asks.

The protocols are `streaming.portstreams` (SPDY/3.1) and `streaming.portchannels` (WebSocket); the runtime makes the connections.
"""

from __future__ import annotations

import socket

from aiohttp import web

from minikube_raw.api.core import Pod
from minikube_raw.api.status import StatusError
from minikube_raw.runtime import cri
from minikube_raw.streaming import portchannels, portstreams
from minikube_raw.streaming.portforwarding import Target
from minikube_raw.streaming.spdyupgrade import wants_spdy


class PortForwardRefused(Exception):
    """An answer that is no upgrade: an HTTP status and the kubelet's text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


async def serve(request: web.Request, pod: Pod, runtime: cri.RuntimeService) -> web.StreamResponse:
    """Forward ports of a pod until the client leaves. Raises PortForwardRefused before the first byte."""
    spdy = wants_spdy(request)
    if not spdy and request.headers.get("Upgrade", "").lower() != "websocket":
        raise PortForwardRefused(400, "Upgrade request required")
    try:
        ports = [] if spdy else portchannels.parse_ports(request.query.getall("port", []))
    except ValueError as error:
        raise PortForwardRefused(400, str(error)) from error
    target = await _target(pod, runtime)
    try:
        if spdy:
            return await portstreams.serve(request, target)
        return await portchannels.serve(request, ports, target)
    except StatusError as error:
        raise PortForwardRefused(error.code, str(error)) from error
    except ConnectionError:
        return web.Response()  # to nobody: the client has gone


async def _target(pod: Pod, runtime: cri.RuntimeService) -> Target:
    """The pod's newest sandbox that is ready."""
    sandboxes = await runtime.list_pod_sandboxes(pod.metadata.uid)
    ready = [each for each in sandboxes if each.state is cri.SandboxState.READY]
    if not ready:
        raise PortForwardRefused(500, f'pod not found ("{pod.metadata.name}_{pod.metadata.namespace}")')
    sandbox_id = max(ready, key=lambda each: each.created_at).id

    async def dial(port: int) -> socket.socket:
        try:
            return await runtime.port_forward(sandbox_id, port)
        except cri.RuntimeServiceError as error:
            raise ConnectionError(str(error)) from error

    return Target(sandbox_id, dial)
