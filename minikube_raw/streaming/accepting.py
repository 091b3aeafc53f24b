"""A client's exec or attach accepted in whichever protocol it asks for: SPDY/3.1 or WebSocket."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from minikube_raw.api import status
from minikube_raw.streaming.channels import RESIZE, STDERR, STDIN, STDOUT, Channels
from minikube_raw.streaming.spdyexec import SpdyChannels
from minikube_raw.streaming.spdyupgrade import wants_spdy
from minikube_raw.streaming.wschannels import WebSocketChannels

_NUMBERS = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "tty": RESIZE}


def check(http: web.BaseRequest, wanted: Mapping[str, bool]) -> None:
    """Raise StatusError 400 for a request that `accept` could not serve: no stream asked for, or no upgrade."""
    if not (wanted["stdin"] or wanted["stdout"] or wanted["stderr"]):
        raise status.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    if not wants_spdy(http) and http.headers.get("Upgrade", "").lower() != "websocket":
        raise status.bad_request("Upgrade request required")


async def accept(http: web.BaseRequest, wanted: Mapping[str, bool]) -> Channels:
    """Answer the upgrade; `wanted` says for stdin, stdout, stderr and tty whether they were asked for.

    Raises StatusError 403 without a common protocol, ConnectionError when the client has gone.
    """
    asked = frozenset(number for name, number in _NUMBERS.items() if wanted[name])
    if wanted["tty"]:
        asked -= {STDERR}  # a terminal has one output
    if wants_spdy(http):
        return await SpdyChannels.accept(http, asked)
    return await WebSocketChannels.accept(http, asked)
