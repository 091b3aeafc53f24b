"""nodes/proxy and pods/proxy: plain HTTP passed on to a node's kubelet or to a port of a pod, and the answer passed back.

Names may say a port and a scheme, [scheme:]name[:port]. Who asked is not passed on: a kubelet sees the API server's certificate, a
pod nobody's (apimachinery's util/proxy, registry/core/pod and node, v1.36).
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from aiohttp import web
from yarl import URL

from minikube_raw.api import status
from minikube_raw.apiserver.dispatch import Call
from minikube_raw.apiserver.kubelets import Kubelets
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.podlog import prepare_stream
from minikube_raw.apiserver.resources.strategy import Object

_CONNECT_SECONDS = 10.0
# Of one connection alone (RFC 9110, 7.6.1), or about a client that is none of the target's business.
_KEPT_BACK = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class Target(NamedTuple):
    """A name of a proxied request: what it says beside the object's own name is empty where it says nothing."""

    scheme: str
    name: str
    port: str


def split_name(text: str, kind: str) -> Target:
    """Read [scheme:]name[:port] (util/net, SplitSchemeNamePort). Raises 400."""
    parts = text.split(":")
    scheme, name, port = {1: ("", *parts, ""), 2: ("", *parts), 3: (*parts,)}.get(len(parts), ("", "", ""))
    if not name or scheme not in ("", "http", "https"):
        raise status.bad_request(f'invalid {kind} request "{text}"')
    return Target(scheme, name, port)


class HTTPProxy:
    """Passes requests on. One session for pods, whose certificates nobody here can judge; kubelets have their own."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of the connections to pods."""
        if self._session is not None:
            await self._session.close()

    async def serve(self, http: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Answer in the target's words. Raises StatusError where there is no target, 503 where it cannot be reached."""
        info = call.info
        if not info.rest and not http.path.endswith("/"):
            return web.Response(status=301, headers={"Location": f"{http.path}/"})
        target = split_name(info.name, info.resource.removesuffix("s"))
        entry = await call.resource.fresh_entry(info.namespace, target.name)
        if info.resource == "nodes":
            session, base = self._kubelets.proxied(target.name, target.port)
        else:
            session, base = self._pods(), pod_url(decode(entry.stored), target)
        # As the client wrote it: a path may hold an encoded slash.
        raw = http.rel_url.raw_path.split("/proxy/", 1)[-1] if "/proxy/" in http.rel_url.raw_path else ""
        query = http.rel_url.raw_query_string
        url = URL(f"{base}/{raw}" + (f"?{query}" if query else ""), encoded=True)
        return await self._pass(http, session, url, call.request.body)

    async def _pass(
        self, http: web.BaseRequest, session: aiohttp.ClientSession, url: URL, body: bytes
    ) -> web.StreamResponse:
        headers = _kept(http.headers)
        try:
            answer = await session.request(
                http.method, url, data=body or None, headers=headers, allow_redirects=False, raise_for_status=False
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise status.service_unavailable(f"error trying to reach service: {error}") from None
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_kept(answer.headers))
        async with answer:
            await prepare_stream(response, http)
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
        return response

    def _pods(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
            connector = aiohttp.TCPConnector(ssl=context, limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session


def pod_url(pod: Object, target: Target) -> str:
    """Return where a pod is reached: the port asked for, else the first one it names, else the scheme's. Raises 400."""
    ip = pod.get("status", {}).get("podIP", "")
    if not _may_be_called(ip):
        raise status.bad_request("address not allowed")
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or ()]
    port = target.port or (str(ports[0]["containerPort"]) if ports else "")
    if port and not port.isdigit():
        named = [str(each["containerPort"]) for each in ports if each.get("name") == port]
        if not named:
            raise status.bad_request(f'invalid pod request "{target.name}:{port}"')
        port = named[0]
    host = f"[{ip}]" if ":" in ip else ip
    return f"{target.scheme or 'http'}://{host}" + (f":{port}" if port else "")


def _may_be_called(ip: str) -> bool:
    """Whether an address can be a pod's: a node says what its pods' addresses are, and must not lead us to ourselves."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)


def _kept(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what is passed on of a message's headers, each as often as it came."""
    return [
        (name, value)
        for name, value in headers.items()
        if name.lower() not in _KEPT_BACK and not name.lower().startswith("impersonate-")
    ]
