"""The kubelet's /containerLogs: which run's log is meant, sent as far as it goes or followed until the container ends."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
from aiohttp import web

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import Clock
from minikube_raw.kubelet import podlogs
from minikube_raw.kubelet.logfiles import Reading
from minikube_raw.kubelet.nodeview import Node, PodView
from minikube_raw.kubelet.watching import FileWatcher
from minikube_raw.runtime import cri

Json = dict[str, Any]


class LogServer:
    """Serves the logs of one node's pods."""

    def __init__(self, node: Node, runtime: cri.RuntimeService, watcher: FileWatcher, clock: Clock) -> None:
        self._node = node
        self._runtime = runtime
        self._watcher = watcher
        self._clock = clock
        self._followers: set[_Follower] = set()

    async def serve(self, request: web.Request, view: PodView, name: str) -> web.StreamResponse:
        """Answer with a container's log. Raises HTTP 400 in the kubelet's words."""
        try:
            options = podlogs.parse_options(request.query, self._clock.now())
        except ValueError as error:
            raise _bad_request(str(error)) from error
        run = await self._run_to_read(view, name, previous=options.previous)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await self._send_log(response, run, options)
        return response

    async def _send_log(self, response: web.StreamResponse, run: _Run, options: podlogs.LogOptions) -> None:
        follower = _Follower(self._runtime, run)
        stop = None
        self._followers.add(follower)
        try:
            if options.follow:
                stop = self._watcher.watch(os.path.dirname(run.path), follower.changed.set)
                await follower.look()
            if options.tail_lines is not None:
                await asyncio.to_thread(follower.reading.skip_to_tail, options.tail_lines)
            async for chunk in podlogs.read(follower.reading, options, follower):
                await response.write(chunk)
            await response.write_eof()
        except ConnectionError:
            pass  # the reader left, as with `logs -f` and Ctrl-C
        finally:
            self._followers.discard(follower)
            if stop is not None:
                stop()

    def rotated(self, path: str, name: str) -> None:
        """A log was just renamed to `name` and will go on in a new file: whoever reads it goes on there."""
        for follower in self._followers:
            if follower.reading.path == path:
                follower.reading.rotated_to(name)
                follower.changed.set()

    async def pods_changed(self) -> None:
        """Some container may have ended: whoever follows its log has to know."""
        for follower in list(self._followers):
            await follower.look()

    async def _run_to_read(self, view: PodView, name: str, *, previous: bool) -> _Run:
        """The run whose log is asked for. Raises HTTP 400 in the kubelet's words when there is none."""
        runs = await runs_of(self._runtime, view.pod, name)
        index = 1 if previous else 0
        if len(runs) > index:
            return _Run(runs[index].log_path or self._default_path(view.pod, runs[index]), runs[index].id)
        pod_name = view.pod.metadata.name
        if previous:
            raise _bad_request(f'previous terminated container "{name}" in pod "{pod_name}" not found')
        left = sorted((self._node.log_directory(view.pod) / name).glob("*.log"), key=lambda path: path.stat().st_mtime)
        if left:
            return _Run(str(left[-1]), "")
        reason = _waiting_reason(view.status, name)
        raise _bad_request(f'container "{name}" in pod "{pod_name}" is waiting to start: {reason}')

    def _default_path(self, pod: Pod, run: cri.ContainerStatus) -> str:
        return str(self._node.log_directory(pod) / run.name / f"{run.attempt}.log")


async def runs_of(runtime: cri.RuntimeService, pod: Pod, name: str) -> list[cri.ContainerStatus]:
    """Attempts of a container that have begun, newest first."""
    found = []
    for sandbox in await runtime.list_pod_sandboxes(pod.metadata.uid):
        found += await runtime.list_containers(sandbox.id)
    begun = [each for each in found if each.name == name and each.state is not cri.ContainerState.CREATED]
    return sorted(begun, key=lambda each: each.attempt, reverse=True)


class _Run(msgspec.Struct, frozen=True):
    """A log file and whose it is ("" when the container is gone)."""

    path: str
    container_id: str


class _Follower:
    """Somebody who reads a log while it grows."""

    def __init__(self, runtime: cri.RuntimeService, run: _Run) -> None:
        self.changed = asyncio.Event()
        self.reading = Reading(run.path)
        self._container_id = run.container_id
        self._runtime = runtime
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


def _waiting_reason(status: Json, name: str) -> str:
    statuses = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    state: Json = next((each["state"] for each in statuses if each["name"] == name), {})
    reason = str(state.get("waiting", {}).get("reason", "ContainerCreating"))
    if reason in ("ErrImagePull", "ImagePullBackOff"):
        return "trying and failing to pull image" if reason == "ErrImagePull" else "image can't be pulled"
    return reason


def _bad_request(text: str) -> web.HTTPException:
    return web.HTTPBadRequest(text=text)
