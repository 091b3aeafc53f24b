"""One worker per pod: looks, decides by `syncpod`, acts, reports; again whenever something may have changed.

Level-triggered: `update` and `look_again` only say that another look is due; a change while it works leads to one more
round. It never polls; waits (back-off, grace) are timers or the runtime's answers. Created and owned by `kubelet`.
"""

from __future__ import annotations

import asyncio
import glob
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from minikube_raw.api.core import Container, Pod
from minikube_raw.client.clock import Clock, Timer
from minikube_raw.kubelet import admission, convert, env, podstatus, stopping, syncpod
from minikube_raw.kubelet.backoff import Backoff
from minikube_raw.kubelet.images import EventSink, ImageUnavailable
from minikube_raw.kubelet.pods import all_containers, container, grace_period, is_terminal, key, log_directory_name
from minikube_raw.kubelet.podstatus import Circumstances, Waiting
from minikube_raw.kubelet.preparation import Preparation
from minikube_raw.kubelet.volumes import MountError
from minikube_raw.runtime import cri

log = logging.getLogger(__name__)
Json = dict[str, Any]
CONFIG_RETRY_SECONDS = 10.0
UNAVAILABLE_RETRY_SECONDS = 1.0
_DEFAULT_GRACE = 30


class StatusSink(Protocol):
    """Where statuses go: the API server, or a list that the standalone agent shows."""

    def set(self, pod: Pod, status: Json, server_has: Json) -> None:
        """Show a status."""
        ...

    def delete(self, pod: Pod) -> None:
        """The pod has ended as its deletion asked for: remove the object."""
        ...

    def forget(self, uid: str) -> None:
        """The object is gone."""
        ...


class Tools(msgspec.Struct, frozen=True):
    """What every worker of a node works with."""

    runtime: cri.RuntimeService
    preparation: Preparation
    statuses: StatusSink
    record: EventSink
    clock: Clock
    node: Callable[[], convert.NodeFacts]
    logs_dir: str


class Held(msgspec.Struct, frozen=True):
    """Why a container cannot be started now, and when to try again."""

    waiting: Waiting
    until: float


class PodWorker:
    """Drives one pod (by uid) from its first sight until nothing of it is left."""

    def __init__(self, uid: str, tools: Tools, pod: Pod | None = None) -> None:
        self.uid = uid
        self.pod = pod
        self.status: Json = {}
        self._tools = tools
        self._wanted = True
        self._server_has: Json = _as_json(pod.status) if pod is not None else {}
        self._due = asyncio.Event()
        self._due.set()
        self._changed = asyncio.Event()
        self._timer: Timer | None = None
        self._restarts = Backoff()
        self._mounts = Backoff(initial=0.5, maximum=120.0)
        self._held: dict[str, Held] = {}
        self._terminated = False
        self._end_told = False
        self._cleaned = False
        self._stale_volumes = False
        self._log_directories: set[str] = set()
        self._told_backoff: dict[str, float] = {}

    def update(self, pod: Pod | None) -> None:
        """Tell the newest wish; None when the object is gone. What is only an echo of our own status wakes nobody."""
        echo = pod is not None and self._wanted and self.pod is not None and _same_wish(self.pod, pod)
        self._wanted = pod is not None
        self.pod = pod or self.pod
        if not echo:
            self._changed.set()
            self._due.set()

    def look_again(self) -> None:
        """Something about the pod may have changed on the node."""
        self._due.set()

    def objects_changed(self) -> None:
        """An object the pod refers to changed: refresh volumes, try containers again that waited for it."""
        self._stale_volumes = True
        self._held = {name: each for name, each in self._held.items() if each.waiting.reason == "CrashLoopBackOff"}
        self._due.set()

    async def run(self) -> None:
        """Work until the pod is gone from API server and node."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                if await self._sync():
                    return
            except Exception:
                # The top of the pod's loop: whatever one pod runs into must not end its worker, nor the others'.
                log.exception("pod %s: another try in a second", self.uid)
                self._look_again_at(self._tools.clock.now() + 1)

    # -- one look ----------------------------------------------------------------------------------------------------

    async def _sync(self) -> bool:
        """One round; True when nothing is left to do, ever."""
        pod = self.pod
        if pod is None or not self._wanted or pod.metadata.deletion_timestamp is not None:
            return await self._terminate(pod)
        if is_terminal(pod) or self._terminated:
            await self._end_terminal(pod)
        elif (refused := admission.refusal(pod)) is not None:
            self._refuse(pod, refused)
        else:
            await self._drive(pod)
        return False

    async def _drive(self, pod: Pod) -> None:
        """Act until there is nothing to do at this moment."""
        while not self._terminated:
            found = await self._find()
            acting = self._decide(pod, found)
            if not acting or not self.status:
                self._report(pod, found)
            if not acting or (self._changed.is_set() and self._superseded()):
                break
            for action in acting:
                await self._act(pod, action, found)
        if self._stale_volumes and not self._terminated:
            await self._set_up_volumes(pod)

    def _refuse(self, pod: Pod, refused: admission.Refusal) -> None:
        """The pod fails before anything of it is made."""
        self._terminated = True
        self._tools.record(pod, "Warning", refused.reason, refused.message)
        self.status = podstatus.refused_status(pod, refused.reason, refused.message, self._tools.clock.now())
        self._tools.statuses.set(pod, self.status, self._server_has)

    def _decide(self, pod: Pod, found: syncpod.Found) -> list[syncpod.Action]:
        """What to do at this moment; what has to wait gets a timer."""
        now = self._tools.clock.now()
        waits = {each.name: self._restarts.get(each.name) for each in all_containers(pod)}
        acting: list[syncpod.Action] = []
        for action in syncpod.compute_actions(pod, found, waits, now):
            if isinstance(action, syncpod.Wait):
                self._note_wait(pod, action)
            elif not self._is_held(action, now):
                acting.append(action)
        return acting

    def _superseded(self) -> bool:
        """Whether the wish has changed so that another round must decide."""
        self._changed.clear()
        return not self._wanted or (self.pod is not None and self.pod.metadata.deletion_timestamp is not None)

    async def _act(self, pod: Pod, action: syncpod.Action, found: syncpod.Found) -> None:
        match action:
            case syncpod.RunSandbox():
                await self._run_sandbox(pod, action)
            case syncpod.StartContainer():
                await self._start(pod, action, found)
            case syncpod.StopContainer():
                self._tools.record(pod, "Normal", "Killing", action.message, action.name)
                await self._tools.runtime.stop_container(action.container_id, grace_period(pod))
            case syncpod.Finish():
                await self._finish(pod)
            case syncpod.Wait():
                pass

    async def _find(self) -> syncpod.Found:
        sandboxes = await self._tools.runtime.list_pod_sandboxes(self.uid)
        containers: list[cri.ContainerStatus] = []
        for sandbox in sandboxes:
            containers += await self._tools.runtime.list_containers(sandbox.id)
        return syncpod.found(sandboxes, containers)

    # -- starting ----------------------------------------------------------------------------------------------------

    async def _run_sandbox(self, pod: Pod, action: syncpod.RunSandbox) -> None:
        """Volumes first (a pod whose volumes are missing gets no sandbox), then the sandbox beside the first images."""
        runtime, now = self._tools.runtime, self._tools.clock.now()
        if action.replaces:
            message = "Pod sandbox changed, it will be killed and re-created."
            self._tools.record(pod, "Normal", "SandboxChanged", message)
            await runtime.stop_pod_sandbox(action.replaces)
        if not await self._set_up_volumes(pod):
            return
        config = convert.sandbox_config(pod, action.attempt, self._log_directory(pod), self._tools.node())
        try:
            await runtime.run_pod_sandbox(config)
        except cri.RuntimeServiceError as error:
            message = f"Failed to create pod sandbox: {error}"
            self._tools.record(pod, "Warning", "FailedCreatePodSandBox", message)
            self._hold("", Waiting("ContainerCreating"), now + _retry_seconds(error))

    async def _set_up_volumes(self, pod: Pod) -> bool:
        self._stale_volumes = False
        try:
            await self._tools.preparation.volumes(pod)
        except MountError as error:
            now = self._tools.clock.now()
            self._tools.record(pod, "Warning", "FailedMount", str(error))
            self._mounts.advance("", now, now)
            entry = self._mounts.get("")
            self._hold("", Waiting("ContainerCreating"), now + (entry.delay if entry else CONFIG_RETRY_SECONDS))
            return False
        return True

    async def _start(self, pod: Pod, action: syncpod.StartContainer, found: syncpod.Found) -> None:
        tools, now = self._tools, self._tools.clock.now()
        wanted, sandbox = container(pod, action.name), found.ready_sandbox
        if wanted is None or sandbox is None:
            return
        try:
            prepared = await tools.preparation.container(pod, wanted, sandbox)
            config = convert.container_config(pod, wanted, action.attempt, prepared, tools.node())
            container_id = await tools.runtime.create_container(sandbox.id, config)
            tools.record(pod, "Normal", "Created", "Container created", wanted.name)
            self._held.pop(wanted.name, None)
            if action.after:
                self._restarts.advance(wanted.name, action.after, now)
            await tools.runtime.start_container(container_id)
            tools.record(pod, "Normal", "Started", "Container started", wanted.name)
        except ImageUnavailable as error:
            self._hold(wanted.name, error.waiting, error.retry_at)
        except env.ConfigError as error:
            self._fail(pod, wanted, Waiting("CreateContainerConfigError", str(error)))
        except cri.RuntimeServiceError as error:
            await self._start_failed(pod, wanted, action, error)

    async def _start_failed(
        self, pod: Pod, wanted: Container, action: syncpod.StartContainer, error: cri.RuntimeServiceError
    ) -> None:
        """What the runtime recorded as ended follows the restart policy; anything else is tried again later."""
        last = (await self._find()).latest(wanted.name)
        if last is not None and last.attempt == action.attempt and last.state is cri.ContainerState.EXITED:
            self._tools.record(pod, "Warning", "Failed", f"Error: {error}", wanted.name)
        else:
            waiting = Waiting(error.reason or "CreateContainerError", str(error))
            self._fail(pod, wanted, waiting, _retry_seconds(error))

    def _fail(self, pod: Pod, wanted: Container, waiting: Waiting, retry_seconds: float = CONFIG_RETRY_SECONDS) -> None:
        self._tools.record(pod, "Warning", "Failed", f"Error: {waiting.message}", wanted.name)
        self._hold(wanted.name, waiting, self._tools.clock.now() + retry_seconds)

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _hold(self, name: str, waiting: Waiting, until: float) -> None:
        """Do not try a container (or, named "", the pod) again before `until`."""
        self._held[name] = Held(waiting, until)
        self._look_again_at(until)

    def _is_held(self, action: syncpod.Action, now: float) -> bool:
        name = action.name if isinstance(action, syncpod.StartContainer) else ""
        if not isinstance(action, (syncpod.StartContainer, syncpod.RunSandbox)):
            return False
        held = self._held.get(name)
        return held is not None and now < held.until

    def _note_wait(self, pod: Pod, wait: syncpod.Wait) -> None:
        where = f"{pod.metadata.name}_{pod.metadata.namespace}({self.uid})"
        message = f"back-off {_duration(wait.delay)} restarting failed container={wait.name} pod={where}"
        self._hold(wait.name, Waiting("CrashLoopBackOff", message), wait.until)
        if self._told_backoff.get(wait.name) != wait.delay:
            self._told_backoff[wait.name] = wait.delay
            event = f"Back-off restarting failed container {wait.name} in pod {where}"
            self._tools.record(pod, "Warning", "BackOff", event, wait.name)

    def _look_again_at(self, when: float) -> None:
        """Keep the earliest timer only; a look too many does no harm."""
        if self._timer is not None:
            self._timer.cancel()
        now = self._tools.clock.now()
        pending = [each.until for each in self._held.values() if each.until > now]
        self._timer = self._tools.clock.call_later(max(min([when, *pending]) - now, 0), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._due.set()
        now = self._tools.clock.now()
        later = [each.until for each in self._held.values() if each.until > now]
        if later:
            self._look_again_at(min(later))

    # -- reporting ---------------------------------------------------------------------------------------------------

    def _report(self, pod: Pod, found: syncpod.Found, *, terminating: bool = False) -> None:
        if self._end_told:
            return  # what is left to see is no longer the pod's end, but its absence
        waiting = {name: each.waiting for name, each in self._held.items() if name}
        around = Circumstances(
            host_ip=self._tools.node().ip,
            now=self._tools.clock.now(),
            waiting=waiting,
            image_names=self._tools.preparation.image_names,
            terminating=terminating,
            terminated=self._terminated,
        )
        status = podstatus.pod_status(pod, found, around, self.status or self._server_has)
        if status != self.status:
            self.status = status
            self._tools.statuses.set(pod, status, self._server_has)

    def _log_directory(self, pod: Pod) -> str:
        return f"{self._tools.logs_dir}/{log_directory_name(pod)}"

    # -- ending ------------------------------------------------------------------------------------------------------

    async def _finish(self, pod: Pod) -> None:
        """All containers have ended for good: take the sandbox down, then show the terminal phase."""
        found = await self._find()
        for sandbox in found.sandboxes:
            await self._tools.runtime.stop_pod_sandbox(sandbox.id)
        self._terminated = True
        self._report(pod, await self._find())

    async def _end_terminal(self, pod: Pod) -> None:
        """A pod that is Succeeded or Failed already: nothing of it runs; its containers stay for their logs."""
        self._terminated = True
        found = await self._find()
        for sandbox in found.sandboxes:
            if sandbox.state is cri.SandboxState.READY:
                await self._tools.runtime.stop_pod_sandbox(sandbox.id)
        if found.sandboxes:
            self._report(pod, found)

    async def _terminate(self, pod: Pod | None) -> bool:
        """Stop everything with the grace the deletion gives, show the end, delete the object; True when all is gone."""
        if not self._cleaned:
            await self._stop_and_remove(pod)
        if self._wanted:
            return False
        self._tools.statuses.forget(self.uid)
        left = {str(each) for each in Path(self._tools.logs_dir).glob(f"*_{glob.escape(self.uid)}")}
        for directory in self._log_directories | left:
            await asyncio.to_thread(shutil.rmtree, directory, True)
        return True

    async def _stop_and_remove(self, pod: Pod | None) -> None:
        found = await self._find()
        running = found.running()
        if running:
            if pod is not None and self._wanted:
                self._report(pod, found, terminating=True)
            await self._stop_all(pod, running)
        for sandbox in found.sandboxes:
            await self._tools.runtime.stop_pod_sandbox(sandbox.id)
        self._terminated = True
        if pod is not None and self._wanted and not self._end_told:
            self._report(pod, await self._find(), terminating=True)
            self._tools.statuses.delete(pod)
            self._end_told = True
        await self._clean_up(pod, found)
        self._cleaned = True

    async def _stop_all(self, pod: Pod | None, running: list[cri.ContainerStatus]) -> None:
        if pod is not None:
            for each in running:
                self._tools.record(pod, "Normal", "Killing", f"Stopping container {each.name}", each.name)
        await stopping.stop_all(self._tools.runtime, running, lambda: self._grace(running), self._changed)

    def _grace(self, running: list[cri.ContainerStatus]) -> float:
        if self.pod is not None:
            gone = not self._wanted and self.pod.metadata.deletion_timestamp is not None
            return 1 if gone else grace_period(self.pod)
        noted = [each.annotations.get(convert.GRACE_PERIOD, "") for each in running]
        return max((int(each) for each in noted if each.isdigit()), default=_DEFAULT_GRACE)

    async def _clean_up(self, pod: Pod | None, found: syncpod.Found) -> None:
        """Remove what the pod has on the node, but its logs: they can be read as long as the object is there."""
        for sandbox in found.sandboxes:
            self._log_directories.add(sandbox.config.log_directory)
            await self._tools.runtime.remove_pod_sandbox(sandbox.id)
        await self._tools.preparation.release(self.uid, pod)
        if self._timer is not None:
            self._timer.cancel()

    def __repr__(self) -> str:
        return f"PodWorker({key(self.pod) if self.pod else self.uid})"


def _retry_seconds(error: cri.RuntimeServiceError) -> float:
    """A process of ours that died is back within a second; anything else has a reason that lasts."""
    return UNAVAILABLE_RETRY_SECONDS if error.reason == "RuntimeUnavailable" else CONFIG_RETRY_SECONDS


def _duration(seconds: float) -> str:
    """Go's time.Duration for whole seconds: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _as_json(status: msgspec.Struct) -> Json:
    """A view as the JSON it was read from: lists where the view has tuples, so that it compares with what we write."""
    plain: Json = msgspec.json.decode(msgspec.json.encode(status))
    return plain


def _same_wish(old: Pod, new: Pod) -> bool:
    """Whether two versions of a pod ask for the same."""
    if new.spec.readiness_gates and old.status.conditions != new.status.conditions:
        return False
    before, after = old.metadata, new.metadata
    return (
        old.spec == new.spec
        and before.generation == after.generation
        and before.deletion_timestamp == after.deletion_timestamp
        and before.deletion_grace_period_seconds == after.deletion_grace_period_seconds
        and before.labels == after.labels
        and before.annotations == after.annotations
        and is_terminal(old) == is_terminal(new)
    )
