"""pods/log: what is asked for checked, and the kubelet's answer passed on as it comes, as a body or over a WebSocket."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator

import aiohttp
from aiohttp import web

from minikube_raw.api import status
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.kubelets import Kubelets, Parameters
from minikube_raw.apiserver.options import Query, first, integer
from minikube_raw.apiserver.resources.podspec import containers
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.apiserver.routes import is_true

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_LOG_FLAGS = ("follow", "timestamps", "previous", "insecureSkipTLSVerifyBackend")
_LOG_NUMBERS = {"tailLines": 0, "sinceSeconds": 1, "limitBytes": 1}
_LOG_STREAMS = ("All", "Stderr", "Stdout")
# Of k8s.io/apiserver pkg/endpoints/responsewriter, what wsstream.Reader speaks.
_BINARY, _BASE64 = "binary.k8s.io", "base64.binary.k8s.io"


async def serve(kubelets: Kubelets, http: web.BaseRequest, pod: Object, query: Query) -> web.StreamResponse:
    """Answer a request for a log. Raises StatusError before the first byte."""
    parameters = _log_parameters(pod["metadata"]["name"], query)
    container = choose_container(pod, first(query, "container"), "choose one of")
    if not pod["spec"].get("nodeName"):
        # Nothing to be read yet, and nothing wrong: an empty log (registry/core/pod, LogLocation).
        return web.Response(status=204)
    async with await kubelets.logs(pod, container, parameters) as source:
        if http.headers.get("Upgrade", "").lower() == "websocket":
            return await _messages(http, source)
        return await _body(http, source)


async def _body(http: web.BaseRequest, source: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-cache, private"})
    await prepare_stream(response, http)
    with contextlib.suppress(ConnectionError, aiohttp.ClientError):
        async for chunk in source.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    return response


async def _messages(http: web.BaseRequest, source: aiohttp.ClientResponse) -> web.StreamResponse:
    """Each piece is a message; the log's end closes the WebSocket."""
    socket = web.WebSocketResponse(protocols=(_BINARY, _BASE64))
    await socket.prepare(http)
    with contextlib.suppress(ConnectionError, aiohttp.ClientError):
        async for chunk in source.content.iter_any():
            if socket.ws_protocol == _BASE64:
                await socket.send_str(base64.b64encode(chunk).decode())
            else:
                await socket.send_bytes(chunk)
    await socket.close()
    return socket


async def prepare_stream(response: web.StreamResponse, http: web.BaseRequest) -> None:
    """Send the headers of an answer whose end is not known; HTTP/1.0 knows it by the connection's end alone."""
    if http.version >= aiohttp.HttpVersion11:
        response.enable_chunked_encoding()
    await response.prepare(http)


def choose_container(pod: Object, wanted: str, hint: str) -> str:
    """Return the container to talk to. Raises 400."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    if wanted:
        if wanted not in {container["name"] for container in containers(spec)}:
            raise status.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    default = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER)
    main = [container["name"] for container in spec["containers"]]
    if default in main:
        return str(default)
    if len(main) == 1:
        return str(main[0])
    init = [container["name"] for container in spec.get("initContainers") or ()]
    text = f"a container name must be specified for pod {name}, {hint}: [{' '.join(main)}]"
    if init:
        text += f" or one of the init containers: [{' '.join(init)}]"
    raise status.bad_request(text)


def _log_parameters(pod: str, query: Query) -> Parameters:
    """Return the kubelet's parameters for a log. Raises 400, 422."""
    causes = list(_judge_log(query))
    if causes:
        raise status.invalid("", "PodLogOptions", pod, causes)
    found = [(name, "true") for name in _LOG_FLAGS[:3] if is_true(query.get(name, ()))]
    found += [(name, str(number)) for name in _LOG_NUMBERS if (number := integer(query, name)) is not None]
    found += [(name, first(query, name)) for name in ("sinceTime", "stream") if first(query, name)]
    return found


def _judge_log(query: Query) -> Iterator[Cause]:
    for name, least in _LOG_NUMBERS.items():
        number = integer(query, name)
        if number is not None and number < least:
            text = "must be greater than 0" if least else "must be greater than or equal to 0"
            yield field.invalid(name, number, text)
    if first(query, "sinceTime") and first(query, "sinceSeconds"):
        yield field.forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified")
    stream = first(query, "stream")
    if stream and stream not in _LOG_STREAMS:
        yield field.not_supported("stream", stream, _LOG_STREAMS)
    if stream not in ("", "All") and "tailLines" in query:
        yield field.forbidden("[]", "`tailLines` and specific `stream` are mutually exclusive for now")
