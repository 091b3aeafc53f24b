"""POST /checkpoint/{namespace}/{pod}/{container} (KEP-2008), in the kubelet's words (pkg/kubelet/server, kubelet.go, v1.36).

The archive stays on the node, readable by root; the answer says where. Who may use a kubelet's API may ask for it, through the
API server as nodes/proxy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import Clock, timestamp
from minikube_raw.kubelet.logserver import runs_of
from minikube_raw.kubelet.nodeview import PodView
from minikube_raw.kubelet.pods import container as find_container
from minikube_raw.runtime import checkpointing, cri

Find = Callable[[web.Request], PodView | None]


class Checkpoints:
    """The handler over one node; archives go to `directory`."""

    def __init__(self, runtime: cri.RuntimeService, directory: Path, clock: Clock) -> None:
        self._runtime, self._directory, self._clock = runtime, directory, clock
        checkpointing.forget_unfinished(directory)

    def add_route(self, app: web.Application, find: Find) -> None:
        """Serve it; `find` finds the pod that a path names."""

        async def checkpoint(request: web.Request) -> web.Response:
            path, view = request.match_info, find(request)
            if view is None:
                return web.Response(status=404, text="pod does not exist")
            if find_container(view.pod, path["container"]) is None:
                return web.Response(status=404, text=f"container {path['container']} does not exist")
            try:
                timeout = int(request.query.getall("timeout", ["0"])[-1])
            except ValueError:
                return web.Response(status=404, text="cannot parse value of timeout parameter")
            try:
                location = await self._make(view.pod, path["container"], timeout)
            except (cri.RuntimeServiceError, OSError) as error:
                what = f"{path['namespace']}/{path['pod']}/{path['container']}"
                return web.Response(status=500, text=f"checkpointing of {what} failed ({error})")
            return web.Response(body=msgspec.json.encode({"items": [location]}), content_type="application/json")

        app.router.add_post("/checkpoint/{namespace}/{pod}/{container}", checkpoint)

    async def _make(self, pod: Pod, name: str, timeout: int) -> str:
        """The path of a new archive. Raises RuntimeServiceError, OSError."""
        if timeout < 0:
            raise cri.RuntimeServiceError(
                checkpointing.ERROR, "CheckpointContainer requires the timeout value to be > 0"
            )
        runs = await runs_of(self._runtime, pod, name)
        if not runs:
            raise cri.RuntimeServiceError(checkpointing.ERROR, f"container {name} not found")
        meta = pod.metadata
        file = f"checkpoint-{meta.name}_{meta.namespace}-{name}-{timestamp(self._clock.now())}.tar"
        location = os.path.join(self._directory, file)
        await self._runtime.checkpoint_container(runs[0].id, location, timeout)
        return location
