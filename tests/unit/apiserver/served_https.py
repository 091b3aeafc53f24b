"""A server that listens with TLS, an administrator's client, and a kubelet that the server knows: for tests on the wire."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web
from served_api import Api

from minikube_raw.apiserver import pki
from minikube_raw.apiserver.server import APIServer, Options
from minikube_raw.store.sqlite import SQLiteStore


class Served(NamedTuple):
    """A listening server, the cluster's certificates and a client with the administrator's."""

    server: APIServer
    pki: pki.PKI
    url: str
    client: aiohttp.ClientSession

    @property
    def api(self) -> Api:
        return Api(self.server)

    async def ask(self, path: str, method: str = "GET", **how: Any) -> tuple[aiohttp.ClientResponse, Any]:
        """What is answered, JSON taken apart; no redirection is followed."""
        async with self.client.request(method, self.url + path, allow_redirects=False, **how) as answer:
            is_json = answer.content_type == "application/json"
            return answer, await (answer.json() if is_json else answer.text())


def context(made: pki.PKI, pair: tuple[Path, Path] | None) -> ssl.SSLContext:
    made_context = ssl.create_default_context(cafile=str(made.ca))
    if pair is not None:
        made_context.load_cert_chain(*pair)
    return made_context


@asynccontextmanager
async def serving(store: SQLiteStore, directory: Path) -> AsyncIterator[Served]:
    made = pki.load_or_create_pki(directory)
    options = Options(
        addresses=[("127.0.0.1", 0)],
        server_certificate=made.server,
        client_ca=made.ca,
        kubelet_client=made.kubelet_client,
    )
    server = APIServer(store, options)
    await server.start()
    connector = aiohttp.TCPConnector(ssl=context(made, made.admin))
    async with aiohttp.ClientSession(connector=connector) as client:
        yield Served(server, made, f"https://127.0.0.1:{server.ports[0]}", client)
    await server.stop()


@asynccontextmanager
async def kubelet_of(served: Served, app: web.Application) -> AsyncIterator[None]:
    """Serves `app` as the kubelet of a node n1, to the server alone."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(served.pki.ca))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(*pki.server_files(served.pki, "kubelet", "system:node:n1", ["127.0.0.1"]))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    endpoint = {"kubeletEndpoint": {"Port": runner.addresses[0][1]}}
    status = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": endpoint}
    await served.api.create("/api/v1/nodes", {"metadata": {"name": "n1"}, "status": status})
    yield
    await runner.cleanup()
