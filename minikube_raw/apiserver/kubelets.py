"""Calls from the API server to kubelets: where a node's kubelet is, and requests to it over the cluster's TLS.

Logs come as a body, exec and attach as a WebSocket with Kubernetes' channels, port-forward in the protocol of its client.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping, Sequence

import aiohttp
from yarl import URL

from minikube_raw.api import status
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.streaming import upgrading

DEFAULT_PORT = 10250
_PREFERRED = ("InternalIP", "Hostname", "ExternalIP")
_CONNECT_SECONDS = 10.0
_SPARE_SECONDS = 60.0  # how long a connection that nobody uses is kept
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
Parameters = Sequence[tuple[str, str]]


class Refused(Exception):
    """A kubelet's answer that is no success, in its words."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def as_status(self) -> status.StatusError:
        """Return the answer as a Status (rest.ResponseLocation's transform)."""
        if self.code == 404:
            message = f"the server could not find the requested resource: {self.text}"
            return status.StatusError(404, "NotFound", message, status.Details())
        return status.StatusError(self.code, "BadRequest" if self.code == 400 else "InternalError", self.text)


class Kubelets:
    """One client session for all kubelets. Certificates are checked against the cluster's CA; names are addresses."""

    def __init__(self, registry: Registry, context: ssl.SSLContext | None) -> None:
        self._nodes = registry.core("nodes")
        self._context = context
        self._session: aiohttp.ClientSession | None = None
        self._dialling: dict[str, asyncio.Task[None]] = {}

    async def logs(self, pod: Object, container: str, parameters: Parameters) -> aiohttp.ClientResponse:
        """Ask for a container's log. Raises 400, 404, 500 in the kubelet's words, 503 when it cannot be reached."""
        url = self._url(pod, "containerLogs", container)
        try:
            return await self._client().get(url, params=list(parameters))
        except Refused as refused:
            raise refused.as_status() from None
        except aiohttp.ClientError as error:
            raise _unreachable(url, error) from None

    async def page(self, node: str, path: str, parameters: Parameters) -> aiohttp.ClientResponse:
        """Get a page of a node's kubelet. Raises Refused in its words, 404 for no such node, 503 when it cannot be reached."""
        host, port = self._address(node)
        url = f"https://{host}:{port}/{path}"
        try:
            return await self._client().get(url, params=list(parameters))
        except aiohttp.ClientError as error:
            raise _unreachable(url, error) from None

    async def summary(self, node: str) -> Object:
        """A node's /stats/summary without disks. Raises as `page`, with a Status for a refusal."""
        try:
            async with await self.page(node, "stats/summary", [("only_cpu_and_memory", "true")]) as answer:
                return decode(await answer.read())
        except Refused as refused:
            raise refused.as_status() from None
        except aiohttp.ClientError as error:
            raise _unreachable(node, error) from None

    async def stream(
        self, pod: Object, verb: str, container: str, parameters: Parameters
    ) -> aiohttp.ClientWebSocketResponse:
        """Open exec or attach. Raises Refused in the kubelet's words, 503 or 500 when it cannot be reached."""
        return await self._connect(self._url(pod, verb, container), parameters, _PROTOCOLS)

    async def _connect(
        self, url: str, parameters: Parameters, protocols: Sequence[str]
    ) -> aiohttp.ClientWebSocketResponse:
        try:
            # No heartbeat: while a slow client makes us stop reading, the kubelet's pong waits behind its output.
            opened = await self._client().ws_connect(url, params=list(parameters), protocols=protocols, max_msg_size=0)
        except aiohttp.ClientError as error:
            raise _unreachable(url, error) from None
        self._prepare_next(url)
        return opened

    def _prepare_next(self, url: str) -> None:
        """Have a connection to that kubelet waiting for the next stream, which takes one for itself.

        A handshake costs both sides several turns of their loops, each of them behind whatever else a busy node does.
        """
        base = str(URL(url).origin())
        if base not in self._dialling:
            task = self._dialling[base] = asyncio.create_task(self._dial(base))
            task.add_done_callback(lambda _: self._dialling.pop(base, None))

    async def _dial(self, base: str) -> None:
        with contextlib.suppress(Refused, aiohttp.ClientError, TimeoutError):  # whoever asks next will hear of it
            async with self._client().get(f"{base}/healthz") as answer:
                await answer.read()

    async def port_forward(
        self, pod: Object, protocols: Sequence[str], parameters: Parameters
    ) -> aiohttp.ClientWebSocketResponse:
        """Open port-forward over WebSocket for the ports in `parameters`. Raises as `stream` does."""
        return await self._connect(self._url(pod, "portForward"), parameters, protocols)

    async def upgrade(self, pod: Object, verb: str, headers: Mapping[str, str]) -> upgrading.Upgraded:
        """Open a connection that speaks what `headers` ask for. Raises as `stream` does."""
        url = self._url(pod, verb)
        if self._context is None:
            raise _no_certificate()
        try:
            return await upgrading.upgrade(url, headers, self._context)
        except upgrading.NotUpgraded as refused:
            raise Refused(refused.code, refused.text) from None
        except OSError as error:  # TimeoutError too
            raise _unreachable(url, error) from None

    def proxied(self, node: str, port: str = "") -> tuple[aiohttp.ClientSession, str]:
        """Return the session for kubelets and where a node's is (another port of the node, if asked). Raises 404, 500, 503."""
        session = self._client()
        host, own = self._address(node)
        return session, f"https://{host}:{port or own}"

    async def close(self) -> None:
        """Let go of the connections."""
        dialling = list(self._dialling.values())
        for task in dialling:
            task.cancel()
        await asyncio.gather(*dialling, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            if self._context is None:
                raise _no_certificate()
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
            connector = aiohttp.TCPConnector(ssl=self._context, limit=0, keepalive_timeout=_SPARE_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, auto_decompress=False, raise_for_status=_refuse
            )
        return self._session

    def _url(self, pod: Object, verb: str, *container: str) -> str:
        metadata, node = pod["metadata"], pod["spec"]["nodeName"]
        host, port = self._address(node)
        return "/".join((f"https://{host}:{port}/{verb}", metadata["namespace"], metadata["name"], *container))

    def _address(self, name: str) -> tuple[str, int]:
        node = decode(self._nodes.entry("", name).stored).get("status", {})
        addresses: Mapping[str, str] = {a["type"]: a["address"] for a in reversed(node.get("addresses") or ())}
        host = next((addresses[kind] for kind in _PREFERRED if kind in addresses), "")
        if not host:
            known = node.get("addresses") or []
            raise status.StatusError(500, "", f"no preferred addresses found; known addresses: {known}")
        port = (node.get("daemonEndpoints") or {}).get("kubeletEndpoint", {}).get("Port") or DEFAULT_PORT
        return f"[{host}]" if ":" in host else host, port


def _no_certificate() -> status.StatusError:
    return status.service_unavailable("this API server has no certificate for kubelets")


def _unreachable(url: str, error: Exception) -> status.StatusError:
    text = f'Get "{url}": {error}'
    return status.StatusError(500, "", text)


async def _refuse(response: aiohttp.ClientResponse) -> None:
    """Raise Refused unless the kubelet sends a log or switches protocols; a WebSocket's own check drops the text."""
    if response.status in (101, 200):
        return
    async with response:
        raise Refused(response.status, (await response.text(errors="replace")).strip())
