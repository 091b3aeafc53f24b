"""The kubelet's own API: logs, exec, attach and port-forward for the API server, the list of pods, health.

One application serves both doors: <nodeIP>:10250 over TLS for clients whose certificate the cluster's CA signed, and a unix
socket for root on this node. Paths and texts are the kubelet's (pkg/kubelet/server).
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from minikube_raw.api.core import Pod
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock
from minikube_raw.kubelet import portforward, statsserver, streaming
from minikube_raw.kubelet.checkpoints import Checkpoints
from minikube_raw.kubelet.logserver import LogServer, runs_of
from minikube_raw.kubelet.nodeview import Node, PodView
from minikube_raw.kubelet.pods import container as find_container
from minikube_raw.kubelet.stats import StatsProvider
from minikube_raw.kubelet.watching import FileWatcher
from minikube_raw.runtime import cri
from minikube_raw.streaming import accepting

Json = dict[str, Any]
API_SERVER = "kube-apiserver-kubelet-client"
MASTERS = "system:masters"


class Server:
    """Handlers over a node; `application` is what aiohttp serves."""

    def __init__(
        self,
        node: Node,
        runtime: cri.RuntimeService,
        watcher: FileWatcher,
        clock: Clock,
        stats: StatsProvider | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._node = node
        self._stats, self._checkpoints = stats, checkpoints
        self._runtime = runtime
        self._log_server = LogServer(node, runtime, watcher, clock)

    def application(self, *, check_client: bool) -> web.Application:
        """The routes; with check_client only the API server's and administrators' certificates may use them."""
        app = web.Application(middlewares=[_only_masters] if check_client else [])
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/healthz/{check}", _healthz)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/pods/", self._pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for method in ("GET", "POST"):
            for pod in ("{namespace}/{pod}", "{namespace}/{pod}/{uid}"):
                app.router.add_route(method, f"/exec/{pod}/{{container}}", self._exec)
                app.router.add_route(method, f"/attach/{pod}/{{container}}", self._attach)
                app.router.add_route(method, f"/portForward/{pod}", self._port_forward)
        if self._stats is not None:
            statsserver.add_routes(app, self._stats)
        if self._checkpoints is not None:
            self._checkpoints.add_route(app, self._find_pod)
        app.router.add_post("/run/{namespace}/{pod}/{container}", self._run)
        return app

    # -- pods and logs -----------------------------------------------------------------------------------------------

    async def _pods(self, request: web.Request) -> web.Response:
        items = [each.as_json() for each in self._node.pods()]
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        view, name = self._find(request)
        return await self._log_server.serve(request, view, name)

    async def pods_changed(self) -> None:
        """Some container may have ended: whoever follows its log has to know."""
        await self._log_server.pods_changed()

    def log_rotated(self, path: str, name: str) -> None:
        """A log was just renamed: whoever reads it has to know."""
        self._log_server.rotated(path, name)

    # -- exec and attach ---------------------------------------------------------------------------------------------

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        running = await self._running(request, 'container not found ("{name}")')
        command = request.query.getall("command", [])
        if not command:
            raise _refused(400, "you must specify at least 1 command")
        wanted = _wanted(request)

        def start() -> Awaitable[cri.ExecSession]:
            return self._runtime.exec(running.id, command, tty=wanted["tty"], stdin=wanted["stdin"])

        return await _interactive(request, wanted, start, "error executing command in container")

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        running = await self._running(request, "container {name} not found in pod {pod}_{namespace}")
        start = functools.partial(self._runtime.attach, running.id)
        tells_exit = (
            request.query.get("exitCode") == "1"
        )  # asked by our own command line, which has no API to ask afterwards
        return await _interactive(
            request, _wanted(request), start, "error attaching to container", tells_exit=tells_exit
        )

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        view = self._find_pod(request)
        if view is None:
            raise _refused(404, "pod does not exist")
        try:
            return await portforward.serve(request, view.pod, self._runtime)
        except portforward.PortForwardRefused as refused:
            raise _refused(refused.code, refused.text) from refused

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
        path, view = request.match_info, self._find_pod(request)
        if view is None:
            raise _refused(404, f'pod "{path["pod"]}" does not exist')
        if find_container(view.pod, path["container"]) is None:
            raise _refused(404, f'container "{path["container"]}" not found in pod "{path["pod"]}"')
        return view, path["container"]

    def _find_pod(self, request: web.Request) -> PodView | None:
        path = request.match_info
        for view in self._node.pods():
            meta = view.pod.metadata
            if (meta.namespace, meta.name) == (path["namespace"], path["pod"]) and path.get(
                "uid", meta.uid
            ) == meta.uid:
                return view
        return None

    async def _runs(self, pod: Pod, name: str) -> list[cri.ContainerStatus]:
        return await runs_of(self._runtime, pod, name)


def tls_context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """TLS that only clients with a certificate of the cluster's CA get through."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # the API server resumes no session
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


def _wanted(request: web.Request) -> dict[str, bool]:
    """The streams asked for, by the names that the API gives them."""
    names = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    return {ours: request.query.get(theirs, "") in ("1", "true") for ours, theirs in names.items()}


async def _interactive(
    request: web.Request,
    wanted: dict[str, bool],
    start: Callable[[], Awaitable[cri.ExecSession]],
    failure: str,
    *,
    tells_exit: bool = True,
) -> web.StreamResponse:
    """Upgrade, start a session and carry its streams; one that cannot be started is told on the error channel."""
    try:
        accepting.check(request, wanted)
        channels = await accepting.accept(request, wanted)
    except StatusError as error:
        raise _refused(error.code, error.message) from error
    except ConnectionError:
        return web.Response()  # to nobody: the client has gone
    try:
        session = await start()
    except (cri.RuntimeServiceError, OSError) as error:
        await channels.finish(streaming.internal_error(f"{failure}: {error}"))
    else:
        await streaming.stream(channels, session, tells_exit=tells_exit)
    return channels.response


def _json(value: Json) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _refused(code: int, text: str) -> web.HTTPException:
    kinds = {400: web.HTTPBadRequest, 403: web.HTTPForbidden, 404: web.HTTPNotFound, 500: web.HTTPInternalServerError}
    return kinds[code](text=text)
