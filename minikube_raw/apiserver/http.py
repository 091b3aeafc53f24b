"""HTTP in front of the dispatcher: reads requests, finds the user, writes answers, watches and streams. aiohttp's low-level server.

One write per turn of the loop goes to a watcher; answers over 128 KB are compressed in a thread for those who ask.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from minikube_raw.api import status
from minikube_raw.apiserver import answers, auth, impersonation, podlog, streams
from minikube_raw.apiserver.answers import Answer, PlainNotFound
from minikube_raw.apiserver.auth import User
from minikube_raw.apiserver.dispatch import Dispatcher
from minikube_raw.apiserver.routes import RequestInfo
from minikube_raw.client.transport import Request

log = logging.getLogger(__name__)
# For aiohttp's server, see `_is_ours`.
protocol_log = logging.getLogger(f"{__name__}.protocol")

MAX_BODY = 3 << 20  # kube-apiserver's limit for a request body
GZIP_BYTES = 128 << 10
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_NO_STORE = "no-cache, private"


def _is_ours(record: logging.LogRecord) -> bool:
    """Keep a traceback out of the log when a client speaks no HTTP: one line says what it sent."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    log.info("%s: %s", record.getMessage(), " ".join(error.message.split()))
    return False


protocol_log.addFilter(_is_ours)


class Front:
    """The handler of aiohttp's server."""

    def __init__(self, dispatcher: Dispatcher, proxy: streams.Proxy, bearer: auth.Bearer) -> None:
        self._dispatcher = dispatcher
        self._proxy = proxy
        self._bearer = bearer

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request, whatever happens."""
        accept = http.headers.get("Accept", "")
        try:
            return await self._serve(http, accept)
        except status.StatusError as error:
            return await self._send(http, answers.failure(error, accept))
        except PlainNotFound:
            return await self._send(http, answers.text("404 page not found\n", 404))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            # Whatever we did not foresee is our fault, and the client's connection survives it.
            log.exception("%s %s", http.method, http.path)
            return await self._send(http, answers.failure(status.internal_error(repr(error)), accept))

    async def _serve(self, http: web.BaseRequest, accept: str) -> web.StreamResponse:
        certificate = http.transport.get_extra_info("peercert") if http.transport is not None else None
        user = auth.authenticate(certificate, http.headers.get("Authorization", ""), http.path, self._bearer)
        if http.method not in _METHODS:
            raise status.method_not_allowed()
        request = Request(
            http.method,
            http.path,
            _query(http.rel_url.raw_query_string),
            await _body(http),
            http.headers.get("Content-Type", ""),
            accept,
            http.headers.get("User-Agent", ""),
            http.headers.get("If-None-Match", ""),
        )
        user = impersonation.acting(user, request, http.headers.items())
        info = self._dispatcher.authorized(request, user)
        if self._dispatcher.is_watch(info):
            return await self._watch(http, request, user, info)
        if self._dispatcher.is_stream(info):
            return await self._proxy.serve(http, self._dispatcher.call(request, user, info))
        return await self._send(http, await self._dispatcher.answer(request, user, info))

    async def _send(self, http: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        headers = {"Cache-Control": _NO_STORE, "Content-Type": answer.content_type, **answer.headers}
        body = answer.body
        if len(body) >= GZIP_BYTES and "gzip" in http.headers.get("Accept-Encoding", ""):
            body = await asyncio.to_thread(gzip.compress, body, 1)
            headers["Content-Encoding"] = "gzip"
        response = web.Response(status=answer.code, body=body, headers=headers)
        for text in answer.warnings:
            response.headers.add("Warning", answers.warning_header(text))
        return response

    async def _watch(
        self, http: web.BaseRequest, request: Request, user: User, info: RequestInfo
    ) -> web.StreamResponse:
        watch = await self._dispatcher.watch(request, user, info)
        response = web.StreamResponse(headers={"Content-Type": watch.content_type, "Cache-Control": _NO_STORE})
        await podlog.prepare_stream(response, http)
        try:
            async for batch in watch.batches:
                await response.write(b"".join(batch))
            await response.write_eof()
        except ConnectionError:
            log.debug("watch of %s: the client has gone", http.path)
        return response


def _query(raw: str) -> dict[str, tuple[str, ...]]:
    """Return the parameters, repeated ones together, empty ones kept."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(raw, keep_blank_values=True):
        found[name] = (*found.get(name, ()), value)
    return found


async def _body(http: web.BaseRequest) -> bytes:
    """Read the body. Raises 413 past the limit, without reading the rest."""
    if not http.body_exists:
        return b""
    chunks, size = [], 0
    async for chunk in http.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY:
            raise status.request_entity_too_large(f"limit is {MAX_BODY}")
        chunks.append(chunk)
    return b"".join(chunks)
