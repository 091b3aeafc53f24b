"""exec and attach as numbered channels, whatever carries them: what the WebSocket and the SPDY side have in common.

The numbers are Kubernetes' (v5.channel.k8s.io). A client's end is either side's `Channels`; the bridge to the kubelet
copies messages between two of them and never looks inside, except to turn the final status into what old protocols say.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec
from aiohttp import web

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


class Message(NamedTuple):
    """Bytes on a channel; on CLOSE the data is the number of the channel that ends."""

    channel: int
    data: bytes


class Channels(Protocol):
    """A client's end of exec or attach."""

    @property
    def response(self) -> web.StreamResponse:
        """What the HTTP handler returns in the end."""
        ...

    async def receive(self) -> Message | None:
        """Return the client's next message, None when it has gone."""
        ...

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes on a channel, waiting while the client is slow. Raises ConnectionError when it has gone."""
        ...

    async def finish(self, final: bytes) -> None:
        """Send the final metav1.Status and close everything."""
        ...


def exit_text(final: bytes) -> str:
    """Return what protocols before v4 say at the end: nothing for success, else the message."""
    try:
        status = msgspec.json.decode(final, type=dict[str, object])
    except msgspec.MsgspecError:
        return final.decode(errors="replace")
    return "" if status.get("status") == "Success" else str(status.get("message", ""))
