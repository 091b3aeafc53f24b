"""A client's end over WebSocket: the first byte of a message is its channel (v1, v4, v5), or the first digit of base64 text.

v5 adds a message that ends a channel; before it a client could not close stdin. The final status is JSON from v4 on.
"""

from __future__ import annotations

import base64
import binascii

from aiohttp import WSMsgType, web

from minikube_raw.streaming.channels import CLOSE, ERROR, STDERR, STDOUT, Message, exit_text

# In order of preference; "" is a client that names none and gets v1.
V5 = "v5.channel.k8s.io"
PROTOCOLS = (
    V5,
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)


class WebSocketChannels:
    """channels.Channels over an accepted WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, asked: frozenset[int]) -> None:
        self._socket = socket
        self._outputs = asked & {STDOUT, STDERR} | {ERROR}
        protocol = self.protocol = socket.ws_protocol or ""
        self._base64 = "base64" in protocol
        self._json_status = protocol.startswith(("v4.", "v5."))
        self._closes = protocol.startswith("v5.")

    @classmethod
    async def accept(cls, http: web.BaseRequest, asked: frozenset[int]) -> WebSocketChannels:
        """Answer the upgrade and tell the client that the channels are up. Output on others than `asked` is dropped."""
        # No heartbeat: a client that is slow to take its output answers late, and is not dead.
        socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=0)
        await socket.prepare(http)
        made = cls(socket, asked)
        await made.send(min(made._outputs), b"")
        return made

    @property
    def response(self) -> web.WebSocketResponse:
        """What the handler returns."""
        return self._socket

    async def receive(self) -> Message | None:
        """Return the client's next message."""
        while True:
            message = await self._socket.receive()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return None
            found = self._decode(message.data)
            if found is not None:
                return found

    def _decode(self, data: bytes | str) -> Message | None:
        if self._base64:
            text = data if isinstance(data, str) else data.decode(errors="replace")
            try:
                return Message(int(text[:1]), base64.b64decode(text[1:], validate=True))
            except (ValueError, binascii.Error):
                return None
        raw = data.encode() if isinstance(data, str) else data
        if not raw or (raw[0] == CLOSE and not self._closes):
            return None
        return Message(raw[0], raw[1:])

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes on a channel."""
        if channel not in self._outputs:
            return
        if self._base64:
            await self._socket.send_str(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send_bytes(bytes([channel]) + data)

    async def finish(self, final: bytes) -> None:
        """Send the final status and close."""
        said = final if self._json_status else exit_text(final).encode()
        try:
            if said:
                await self.send(ERROR, said)
        except ConnectionError:
            return  # the client did not wait for the end
        await self._socket.close()
