"""pods/log, pods/exec and pods/attach: the client's side checked and spoken in whatever it speaks, the kubelet's in one form.

Port-forwarding is handed on to `portforward`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Mapping

import aiohttp
import msgspec
from aiohttp import web

from minikube_raw.api import status
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import portforward
from minikube_raw.apiserver.dispatch import Call
from minikube_raw.apiserver.kubelets import Kubelets, Parameters, Refused
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.options import Query, first, integer
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources.podspec import containers
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.apiserver.routes import is_true
from minikube_raw.streaming import accepting
from minikube_raw.streaming.channels import CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, Channels

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_LOG_FLAGS = ("follow", "timestamps", "previous", "insecureSkipTLSVerifyBackend")
_LOG_NUMBERS = {"tailLines": 0, "sinceSeconds": 1, "limitBytes": 1}


class Proxy:
    """Serves the streaming subresources of pods."""

    def __init__(self, registry: Registry, kubelet_tls: ssl.SSLContext | None) -> None:
        self._kubelets = Kubelets(registry, kubelet_tls)

    async def close(self) -> None:
        """Let go of the connections to kubelets."""
        await self._kubelets.close()

    async def serve(self, http: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Answer a request for a pod's streams. Raises StatusError before the first byte."""
        subresource, query = call.info.subresource, call.request.query
        if call.info.verb not in (("get",) if subresource == "log" else ("get", "create")):
            raise status.method_not_allowed()
        entry = await call.resource.fresh_entry(call.info.namespace, call.info.name)
        pod = decode(entry.stored)
        if subresource == "log":
            return await self._log(http, pod, query)
        if subresource == "portforward":
            return await portforward.serve(self._kubelets, http, pod, query)
        return await self._interactive(http, pod, subresource, query)

    # --- logs ---

    async def _log(self, http: web.BaseRequest, pod: Object, query: Query) -> web.StreamResponse:
        parameters = _log_parameters(pod["metadata"]["name"], query)
        container = _container(pod, first(query, "container"), "choose one of")
        if not pod["spec"].get("nodeName"):
            # Nothing to be read yet, and nothing wrong: an empty log (registry/core/pod, LogLocation).
            return web.Response(status=204)
        source = await self._kubelets.logs(pod, container, parameters)
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-cache, private"})
        await prepare_stream(response, http)
        async with source:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                async for chunk in source.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
        return response

    # --- exec and attach ---

    async def _interactive(self, http: web.BaseRequest, pod: Object, verb: str, query: Query) -> web.StreamResponse:
        container = _container(pod, first(query, "container"), "choose one of")
        if not pod["spec"].get("nodeName"):
            raise status.bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        wanted = {name: is_true(query.get(name, ())) for name in ("stdin", "stdout", "stderr", "tty")}
        accepting.check(http, wanted)
        try:
            kubelet = await self._kubelets.stream(pod, verb, container, _parameters(wanted, query))
        except Refused as refused:
            # No Status: clients show the kubelet's own words (`unable to upgrade connection: container not found ("c")`).
            return web.Response(status=refused.code, text=refused.text + "\n")
        async with kubelet:
            try:
                channels = await accepting.accept(http, wanted)
            except ConnectionError:
                return web.Response()  # to nobody: the client has gone
            await bridge(channels, kubelet)
            return channels.response


async def prepare_stream(response: web.StreamResponse, http: web.BaseRequest) -> None:
    """Send the headers of an answer whose end is not known; HTTP/1.0 knows it by the connection's end alone."""
    if http.version >= aiohttp.HttpVersion11:
        response.enable_chunked_encoding()
    await response.prepare(http)


def _parameters(wanted: Mapping[str, bool], query: Query) -> Parameters:
    """Return the kubelet's parameters, which calls the streams by other names than the API does."""
    names = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    flags = [(names[name], "1") for name, on in wanted.items() if on]
    return [*(("command", word) for word in query.get("command", ())), *flags]


async def bridge(client: Channels, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    """Copy messages both ways until the kubelet says how it ended or either side goes; then end the other."""
    forth = asyncio.create_task(_to_kubelet(client, kubelet))
    back = asyncio.create_task(_to_client(client, kubelet))
    try:
        await asyncio.wait((forth, back), return_when=asyncio.FIRST_COMPLETED)
        if back.done() and back.exception() is None:
            await client.finish(back.result())
    finally:
        for task in (forth, back):
            task.cancel()
        await asyncio.gather(forth, back, return_exceptions=True)
        await kubelet.close()


async def _to_kubelet(client: Channels, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    """Return when the client has gone."""
    while (message := await client.receive()) is not None:
        if message.channel in (STDIN, RESIZE, CLOSE):
            await kubelet.send_bytes(bytes([message.channel]) + message.data)


async def _to_client(client: Channels, kubelet: aiohttp.ClientWebSocketResponse) -> bytes:
    """Return the final status."""
    async for message in kubelet:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == ERROR:
            return bytes(data)
        if channel in (STDOUT, STDERR):
            await client.send(channel, data)
    lost = status.internal_error("the connection to the kubelet was lost")
    return msgspec.json.encode(lost.to_dict())


def _container(pod: Object, wanted: str, hint: str) -> str:
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
    if first(query, "sinceTime"):
        found.append(("sinceTime", first(query, "sinceTime")))
    return found


def _judge_log(query: Query) -> Iterator[Cause]:
    for name, least in _LOG_NUMBERS.items():
        number = integer(query, name)
        if number is not None and number < least:
            text = "must be greater than 0" if least else "must be greater than or equal to 0"
            yield field.invalid(name, number, text)
    if first(query, "sinceTime") and first(query, "sinceSeconds"):
        yield field.forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified")
    if first(query, "stream") and first(query, "stream") != "All" and "tailLines" in query:
        yield field.forbidden("stream", "may not be specified")
