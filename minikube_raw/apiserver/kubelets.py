"""Calls from the API server to kubelets: where a node's kubelet is, and requests to it over the cluster's TLS.

Logs come as a body, exec and attach as a WebSocket with Kubernetes' channels: the one form spoken on this side.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence

import aiohttp

from minikube_raw.api import status
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources.strategy import Object

DEFAULT_PORT = 10250
_PREFERRED = ("InternalIP", "Hostname", "ExternalIP")
_CONNECT_SECONDS = 10.0
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_HEARTBEAT_SECONDS = 30.0
Parameters = Sequence[tuple[str, str]]


class Kubelets:
    """One client session for all kubelets. Certificates are checked against the cluster's CA; names are addresses."""

    def __init__(self, registry: Registry, context: ssl.SSLContext | None) -> None:
        self._nodes = registry.core("nodes")
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    async def logs(self, pod: Object, container: str, parameters: Parameters) -> aiohttp.ClientResponse:
        """Ask for a container's log. Raises 400, 404, 500 in the kubelet's words, 503 when it cannot be reached."""
        url = self._url(pod, "containerLogs", container)
        try:
            response = await self._client().get(url, params=list(parameters))
        except aiohttp.ClientError as error:
            raise _unreachable(url, error) from None
        if response.status != 200:
            raise await _refusal(response)
        return response

    async def stream(
        self, pod: Object, verb: str, container: str, parameters: Parameters
    ) -> aiohttp.ClientWebSocketResponse:
        """Open exec or attach. Raises like `logs`."""
        url = self._url(pod, verb, container)
        try:
            return await self._client().ws_connect(
                url,
                params=list(parameters),
                protocols=_PROTOCOLS,
                max_msg_size=0,
                heartbeat=_HEARTBEAT_SECONDS,
            )
        except aiohttp.WSServerHandshakeError as error:
            text = error.message or "unable to upgrade"
            raise status.StatusError(error.status, "", f"unable to upgrade connection: {text}") from None
        except aiohttp.ClientError as error:
            raise _unreachable(url, error) from None

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            if self._context is None:
                raise status.service_unavailable("this API server has no certificate for kubelets")
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
            connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session

    def _url(self, pod: Object, verb: str, container: str) -> str:
        metadata, node = pod["metadata"], pod["spec"]["nodeName"]
        host, port = self._address(node)
        return f"https://{host}:{port}/{verb}/{metadata['namespace']}/{metadata['name']}/{container}"

    def _address(self, name: str) -> tuple[str, int]:
        node = decode(self._nodes.entry("", name).stored).get("status", {})
        addresses: Mapping[str, str] = {a["type"]: a["address"] for a in reversed(node.get("addresses") or ())}
        host = next((addresses[kind] for kind in _PREFERRED if kind in addresses), "")
        if not host:
            known = node.get("addresses") or []
            raise status.StatusError(500, "", f"no preferred addresses found; known addresses: {known}")
        port = (node.get("daemonEndpoints") or {}).get("kubeletEndpoint", {}).get("Port") or DEFAULT_PORT
        return f"[{host}]" if ":" in host else host, port


def _unreachable(url: str, error: Exception) -> status.StatusError:
    text = f'Get "{url}": {error}'
    return status.StatusError(500, "", text)


async def _refusal(response: aiohttp.ClientResponse) -> status.StatusError:
    """Return what a kubelet said as a Status (rest.ResponseLocation's transform)."""
    async with response:
        text = (await response.text(errors="replace")).strip()
    if response.status == 404:
        message = f"the server could not find the requested resource: {text}"
        return status.StatusError(404, "NotFound", message, status.Details())
    reason = "BadRequest" if response.status == 400 else "InternalError"
    return status.StatusError(response.status, reason, text)
