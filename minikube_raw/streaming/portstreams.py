"""portforward.k8s.io over SPDY/3.1: for each connection a data and an error stream, which belong together by a request id.

Source: k8s.io/kubelet pkg/cri/streaming/portforward/httpstream.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from minikube_raw.streaming import hijack, spdyupgrade
from minikube_raw.streaming.portforwarding import Target, forward
from minikube_raw.streaming.spdysession import Session, Stream

PROTOCOL = "portforward.k8s.io"
PAIR_SECONDS = 30.0  # the kubelet's streamCreationTimeout
_MAX_STREAMS = 4096
log = logging.getLogger(__name__)


class _Connection:
    """portforwarding.ClientStream over a pair of streams."""

    half_closes = True

    def __init__(self, port: int, data: Stream, error: Stream) -> None:
        self.port = port
        self._data = data
        self._error = error
        self.read = data.read
        self.write = data.write

    def finish(self) -> None:
        """Both: kubectl closes its local connection when the error stream has ended, and the local client may wait for that."""
        self._data.finish()
        self._error.finish()

    def reset(self) -> None:
        self._data.reset()

    async def fail(self, text: str) -> None:
        await self._error.write(text.encode())
        self.close()

    def close(self) -> None:
        for stream in (self._data, self._error):
            stream.discard()
            stream.finish()


async def serve(http: web.BaseRequest, target: Target) -> web.StreamResponse:
    """Switch protocols and forward what the client opens, until it leaves. Raises StatusError 403, ConnectionResetError."""
    protocol = spdyupgrade.negotiate(http, (PROTOCOL,))
    session = spdyupgrade.switch(http, protocol, max_streams=_MAX_STREAMS)
    pairs = _Pairs(target)
    try:
        while True:
            pairs.add(await session.next_stream())
    except ConnectionResetError:
        pass  # the client has left; its streams are reset
    finally:
        await _end(session, pairs)
    return hijack.Switched()


async def _end(session: Session, pairs: _Pairs) -> None:
    session.abort()
    await pairs.end()


class _Pairs:
    """Streams waiting for the other half of their pair, and the connections that run."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._waiting: dict[str, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, stream: Stream) -> None:
        """Accept a stream the client opened, or reset it when its headers make no sense."""
        kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
        if kind not in ("data", "error") or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            log.info("port-forward: stream refused: type %r, port %r", kind, port)
            stream.reset()
            return
        request = _request_id(stream, kind)
        other = self._waiting.pop(request, None)
        if other is not None and other.headers.get("streamtype") == kind:
            self._waiting[request] = other
            stream.reset()
            return
        stream.reply()
        if other is None:
            self._waiting[request] = stream
            self._run(self._expire(request, stream))
            return
        data, error = (stream, other) if kind == "data" else (other, stream)
        self._run(forward(_Connection(int(port), data, error), self._target))

    async def _expire(self, request: str, stream: Stream) -> None:
        """Give a stream up whose other half does not come."""
        await asyncio.sleep(PAIR_SECONDS)
        if self._waiting.get(request) is stream:
            del self._waiting[request]
            stream.reset()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Cut every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _request_id(stream: Stream, kind: str) -> str:
    """Return what pairs a stream; clients before 1.4 send no id and open the error stream first."""
    return stream.headers.get("requestid") or str(stream.id if kind == "error" else stream.id - 2)
