"""The kubelet's own API: logs, exec and attach for the API server, the list of pods, health.

One application serves both doors: <nodeIP>:10250 over TLS for clients whose certificate the cluster's CA signed, and a unix
socket for root on this node. Paths and texts are the kubelet's (pkg/kubelet/server).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any, Protocol

import msgspec
from aiohttp import web

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import Clock
from minikube_raw.kubelet import podlogs, streaming
from minikube_raw.kubelet.pods import container as find_container
from minikube_raw.kubelet.watching import FileWatcher
from minikube_raw.runtime import cri

Json = dict[str, Any]
API_SERVER = "kube-apiserver-kubelet-client"
MASTERS = "system:masters"


class PodView(msgspec.Struct, frozen=True):
    """A pod with the status shown last."""

    pod: Pod
    status: Json

    def as_json(self) -> Json:
        """The object as /pods lists it."""
        meta, spec = msgspec.to_builtins(self.pod.metadata), msgspec.to_builtins(self.pod.spec)
        return {"metadata": meta, "spec": spec, "status": self.status}


class Node(Protocol):
    """What the server asks of the agent."""

    def pods(self) -> list[PodView]:
        """Every pod of the node."""
        ...

    def log_directory(self, pod: Pod) -> Path:
        """Where a pod's logs lie."""
        ...


class Server:
    """Handlers over a node; `application` is what aiohttp serves."""

    def __init__(self, node: Node, runtime: cri.RuntimeService, watcher: FileWatcher, clock: Clock) -> None:
        self._node = node
        self._runtime = runtime
        self._watcher = watcher
        self._clock = clock
        self._followers: set[_Follower] = set()

    def application(self, *, check_client: bool) -> web.Application:
        """The routes; with check_client only the API server's and administrators' certificates may use them."""
        app = web.Application(middlewares=[_only_masters] if check_client else [])
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/healthz/{check}", _healthz)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/pods/", self._pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for method in ("GET", "POST"):
            app.router.add_route(method, "/exec/{namespace}/{pod}/{container}", self._exec)
            app.router.add_route(method, "/attach/{namespace}/{pod}/{container}", self._attach)
        app.router.add_post("/run/{namespace}/{pod}/{container}", self._run)
        return app

    # -- pods and logs -----------------------------------------------------------------------------------------------

    async def _pods(self, request: web.Request) -> web.Response:
        items = [each.as_json() for each in self._node.pods()]
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        view, name = self._find(request)
        try:
            options = podlogs.parse_options(request.query, self._clock.now())
        except ValueError as error:
            raise _refused(400, str(error)) from error
        run = await self._run_to_read(view, name, previous=options.previous)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        if not os.path.exists(run.path):
            return web.Response(text="")
        await response.prepare(request)
        await self._send_log(response, run, options)
        return response

    async def _send_log(self, response: web.StreamResponse, run: _Run, options: podlogs.LogOptions) -> None:
        follower = _Follower(self._runtime, run.container_id)
        stop = None
        if options.follow:
            stop = self._watcher.watch(os.path.dirname(run.path), follower.changed.set)
            self._followers.add(follower)
            await follower.look()
        try:
            async for chunk in podlogs.read(run.path, options, follower.has_ended, follower.next_change):
                await response.write(chunk)
            await response.write_eof()
        except ConnectionError:
            pass  # the reader left, as with `logs -f` and Ctrl-C
        finally:
            self._followers.discard(follower)
            if stop is not None:
                stop()

    async def pods_changed(self) -> None:
        """Some container may have ended: whoever follows its log has to know."""
        for follower in list(self._followers):
            await follower.look()

    async def _run_to_read(self, view: PodView, name: str, *, previous: bool) -> _Run:
        """The run whose log is asked for. Raises HTTP 400 in the kubelet's words when there is none."""
        runs = await self._runs(view.pod, name)
        index = 1 if previous else 0
        if len(runs) > index:
            return _Run(runs[index].log_path or self._default_path(view.pod, runs[index]), runs[index].id)
        pod_name = view.pod.metadata.name
        if previous:
            raise _refused(400, f'previous terminated container "{name}" in pod "{pod_name}" not found')
        left = sorted((self._node.log_directory(view.pod) / name).glob("*.log"), key=lambda path: path.stat().st_mtime)
        if left:
            return _Run(str(left[-1]), "")
        reason = _waiting_reason(view.status, name)
        raise _refused(400, f'container "{name}" in pod "{pod_name}" is waiting to start: {reason}')

    def _default_path(self, pod: Pod, run: cri.ContainerStatus) -> str:
        return str(self._node.log_directory(pod) / run.name / f"{run.attempt}.log")

    # -- exec and attach ---------------------------------------------------------------------------------------------

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        running = await self._running(request, 'container not found ("{name}")')
        command = request.query.getall("command", [])
        if not command:
            raise _refused(400, "you must specify at least 1 command")
        tty, stdin = _asked(request, "tty"), _asked(request, "input")
        socket = await _upgrade(request)
        try:
            session = await self._runtime.exec(running.id, command, tty=tty, stdin=stdin)
        except (cri.RuntimeServiceError, OSError) as error:
            status = streaming.internal_error(f"error executing command in container: {error}")
            await streaming.send_status(socket, status)
            return socket
        await streaming.stream(socket, session)
        return socket

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        running = await self._running(request, "container {name} not found in pod {pod}_{namespace}")
        socket = await _upgrade(request)
        try:
            session = await self._runtime.attach(running.id)
        except (cri.RuntimeServiceError, OSError) as error:
            await streaming.send_status(socket, streaming.internal_error(f"error attaching to container: {error}"))
            return socket
        await streaming.stream(socket, session)
        return socket

    async def _run(self, request: web.Request) -> web.Response:
        """POST /run: a command's output, as text."""
        running = await self._running(request, 'container not found ("{name}")')
        result = await self._runtime.exec_sync(running.id, request.query.get("cmd", "").split())
        return web.Response(body=result.stdout + result.stderr, content_type="text/plain")

    async def _running(self, request: web.Request, missing: str) -> cri.ContainerStatus:
        view, name = self._find(request)
        runs = await self._runs(view.pod, name)
        if runs and runs[0].state is cri.ContainerState.RUNNING:
            return runs[0]
        meta = view.pod.metadata
        raise _refused(500, missing.format(name=name, pod=meta.name, namespace=meta.namespace))

    # -- finding -----------------------------------------------------------------------------------------------------

    def _find(self, request: web.Request) -> tuple[PodView, str]:
        path = request.match_info
        for view in self._node.pods():
            meta = view.pod.metadata
            if (meta.namespace, meta.name) == (path["namespace"], path["pod"]):
                if find_container(view.pod, path["container"]) is None:
                    raise _refused(404, f'container "{path["container"]}" not found in pod "{path["pod"]}"')
                return view, path["container"]
        raise _refused(404, f'pod "{path["pod"]}" does not exist')

    async def _runs(self, pod: Pod, name: str) -> list[cri.ContainerStatus]:
        """Attempts of a container that have begun, newest first."""
        found = []
        for sandbox in await self._runtime.list_pod_sandboxes(pod.metadata.uid):
            found += await self._runtime.list_containers(sandbox.id)
        begun = [each for each in found if each.name == name and each.state is not cri.ContainerState.CREATED]
        return sorted(begun, key=lambda each: each.attempt, reverse=True)


class _Run(msgspec.Struct, frozen=True):
    """A log file and whose it is ("" when the container is gone)."""

    path: str
    container_id: str


class _Follower:
    """Somebody who reads a log while it grows."""

    def __init__(self, runtime: cri.RuntimeService, container_id: str) -> None:
        self.changed = asyncio.Event()
        self._runtime = runtime
        self._container_id = container_id
        self._ended = True

    def has_ended(self) -> bool:
        """Whether nothing will be written any more."""
        return self._ended

    def next_change(self) -> asyncio.Event:
        """An event that is set when there may be more to read."""
        self.changed.clear()
        return self.changed

    async def look(self) -> None:
        """Ask whether the container still runs."""
        status = await self._runtime.container_status(self._container_id) if self._container_id else None
        self._ended = status is None or status.state is not cri.ContainerState.RUNNING
        self.changed.set()


def tls_context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """TLS that only clients with a certificate of the cluster's CA get through."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@web.middleware
async def _only_masters(request: web.Request, handler: Any) -> web.StreamResponse:
    """A node's certificate is signed by the same CA, and must not open other nodes' containers."""
    certificate: Any = request.get_extra_info("peercert") or {}
    subject = [pair for attributes in certificate.get("subject", ()) for pair in attributes]
    if ("commonName", API_SERVER) not in subject and ("organizationName", MASTERS) not in subject:
        raise _refused(403, "Forbidden: only the API server and administrators may use a kubelet's API")
    response: web.StreamResponse = await handler(request)
    return response


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _upgrade(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=streaming.PROTOCOLS, max_msg_size=0)
    if not socket.can_prepare(request).ok:
        raise _refused(400, "unable to upgrade: only WebSocket (v5.channel.k8s.io, v4.channel.k8s.io) is spoken here")
    await socket.prepare(request)
    return socket


def _asked(request: web.Request, name: str) -> bool:
    return request.query.get(name, "") in ("1", "true")


def _waiting_reason(status: Json, name: str) -> str:
    statuses = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    state: Json = next((each["state"] for each in statuses if each["name"] == name), {})
    reason = str(state.get("waiting", {}).get("reason", "ContainerCreating"))
    if reason in ("ErrImagePull", "ImagePullBackOff"):
        return "trying and failing to pull image" if reason == "ErrImagePull" else "image can't be pulled"
    return reason


def _json(value: Json) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _refused(code: int, text: str) -> web.HTTPException:
    kinds = {400: web.HTTPBadRequest, 403: web.HTTPForbidden, 404: web.HTTPNotFound, 500: web.HTTPInternalServerError}
    return kinds[code](text=text)
