"""A client without kubectl: WebSockets to the API server with the administrator's certificate, as the conformance suite opens them."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from tests.clusters import Cluster


def _credentials(cluster: Cluster, directory: Path) -> tuple[str, ssl.SSLContext]:
    """The server's address, and TLS settings with the client certificate of the kubeconfig."""
    config = yaml.safe_load(Path(cluster.environment["KUBECONFIG"]).read_text())
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(server["certificate-authority-data"]).decode())
    for name in ("client-certificate-data", "client-key-data"):
        (directory / name).write_bytes(base64.b64decode(user[name]))
    context.load_cert_chain(directory / "client-certificate-data", directory / "client-key-data")
    return server["server"], context


@asynccontextmanager
async def connected(
    cluster: Cluster, directory: Path, path: str, protocols: Sequence[str]
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open a WebSocket to a path of the API."""
    server, context = _credentials(cluster, directory)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.ws_connect(server + path, protocols=protocols, max_msg_size=0) as socket,
    ):
        yield socket


async def messages(socket: aiohttp.ClientWebSocketResponse) -> list[bytes]:
    """All binary messages until the server closes."""
    return [message.data async for message in socket if message.type is aiohttp.WSMsgType.BINARY]
