"""From an HTTP request to a SPDY session: `Upgrade: SPDY/3.1`, and which of its subprotocols both sides speak."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from minikube_raw.api import status
from minikube_raw.streaming import hijack
from minikube_raw.streaming.spdysession import Session

SPDY = "SPDY/3.1"
PROTOCOL_HEADER = "X-Stream-Protocol-Version"


def wants_spdy(http: web.BaseRequest) -> bool:
    """Whether the client asks for an upgrade to SPDY/3.1."""
    connection = {token.strip() for token in http.headers.get("Connection", "").lower().split(",")}
    return "upgrade" in connection and SPDY.lower() in http.headers.get("Upgrade", "").lower()


def negotiate(http: web.BaseRequest, supported: Sequence[str]) -> str:
    """Return the first of the supported subprotocols that the client offers, "" when it offers none at all.

    Raises StatusError 403 without a common one (apimachinery's httpstream.Handshake).
    """
    values = http.headers.getall(PROTOCOL_HEADER, [])
    offered = [name.strip() for value in values for name in value.split(",") if name.strip()]
    if not offered:
        return ""
    for protocol in supported:
        if protocol in offered:
            return protocol
    told = f"client supports {_go_list(offered)}, server accepts {_go_list(supported)}"
    raise status.StatusError(403, "Forbidden", f"unable to upgrade: unable to negotiate protocol: {told}")


def _go_list(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"


def switch(http: web.BaseRequest, protocol: str, *, max_streams: int) -> Session:
    """Answer 101 and return the session that has the connection from now on. Raises ConnectionResetError without one."""
    session = _UpgradedSession(http.protocol, max_streams=max_streams)
    hijack.take_over(http, hijack.switching_protocols(SPDY, {PROTOCOL_HEADER: protocol} if protocol else {}), session)
    return session


class _UpgradedSession(Session):
    """Tells aiohttp's protocol of the end too; without that its server keeps the connection in its books for ever."""

    def __init__(self, http_protocol: asyncio.Protocol, *, max_streams: int) -> None:
        super().__init__(max_streams=max_streams)
        self._http_protocol = http_protocol

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._http_protocol.connection_lost(exc)
