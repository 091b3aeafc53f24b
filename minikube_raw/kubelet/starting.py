"""A pod's sandbox and containers on their way up: volumes, image, create, start; and what keeps them from it.

Whatever fails becomes an Event and a hold with a reason; `podworker` decides what is tried, and when again.
"""

from __future__ import annotations

import asyncio
import glob
from pathlib import Path

import msgspec

from minikube_raw.api import times
from minikube_raw.api.containers import LifecycleHandler
from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet import convert, dns, env, ephemeral, hooks, logfiles, syncpod
from minikube_raw.kubelet.backoff import Backoff
from minikube_raw.kubelet.circumstances import Waiting
from minikube_raw.kubelet.holds import Holds
from minikube_raw.kubelet.images import ImageUnavailable
from minikube_raw.kubelet.mounterror import MountError
from minikube_raw.kubelet.pods import container, log_directory_name
from minikube_raw.kubelet.probe_actions import Asked
from minikube_raw.kubelet.restarts import should_restart
from minikube_raw.kubelet.tools import Tools
from minikube_raw.runtime import cri

BACKING_OFF = "CrashLoopBackOff"
POST_START_FAILED = "PostStartHookError"
RUN_FAILED = "RunContainerError"
FAILED_RUN_SECONDS = 1.0
CONFIG_RETRY_SECONDS = 10.0
UNAVAILABLE_RETRY_SECONDS = 1.0


class NotCreated(Exception):
    """The runtime could not make a container; `why` is its own error."""

    def __init__(self, why: cri.RuntimeServiceError) -> None:
        super().__init__(str(why))
        self.why = why


class Starter:
    """Starts what one pod's worker asks for. Nothing is raised for what a pod may run into."""

    def __init__(self, uid: str, tools: Tools, holds: Holds) -> None:
        self.restarts = Backoff()
        self._uid = uid
        self._tools = tools
        self._holds = holds
        self._mounts = Backoff(initial=0.5, maximum=120.0)
        self._told_backoff: dict[str, float] = {}
        self._hook: asyncio.Task[None] | None = None

    async def run_sandbox(self, pod: Pod, action: syncpod.RunSandbox) -> None:
        """Volumes first (a pod whose volumes are missing gets no sandbox), then the sandbox."""
        runtime, now = self._tools.runtime, self._tools.clock.now()
        if action.replaces:
            message = "Pod sandbox changed, it will be killed and re-created."
            self._tools.record(pod, "Normal", "SandboxChanged", message)
            await runtime.stop_pod_sandbox(action.replaces)
        if self._lacks_drivers(pod) or not await self.set_up_volumes(pod):
            return
        logs = f"{self._tools.logs_dir}/{log_directory_name(pod)}"
        try:
            handler = await self._tools.check_runtime(pod)
            node = self._tools.node()
            config = convert.sandbox_config(pod, action.attempt, logs, node, handler)
            for omitted in dns.omissions(pod, node.cluster, node.resolver):
                self._tools.record(pod, "Warning", "DNSConfigForming", omitted)
            await runtime.run_pod_sandbox(config if self._tools.cpus is None else self._tools.cpus.pod(config, pod))
        except (cri.RuntimeServiceError, dns.NameTooLong) as error:
            message = f"Failed to create pod sandbox: {error}"
            self._tools.record(pod, "Warning", "FailedCreatePodSandBox", message)
            retry = _retry_seconds(error) if isinstance(error, cri.RuntimeServiceError) else CONFIG_RETRY_SECONDS
            self._holds.hold("", Waiting("ContainerCreating"), now + retry)

    def _lacks_drivers(self, pod: Pod) -> bool:
        """Whether the pod claims devices: no driver of any is known here, and to run without them would be another pod."""
        names = ", ".join(each.name for each in pod.spec.resource_claims)
        if names:
            why = f"this node has no driver for the pod's resource claims ({names})"
            message = f"Failed to prepare dynamic resources: {why}"
            self._tools.record(pod, "Warning", "FailedPrepareDynamicResources", message)
            self._holds.hold("", Waiting("ContainerCreating"), self._tools.clock.now() + CONFIG_RETRY_SECONDS)
        return bool(names)

    async def set_up_volumes(self, pod: Pod) -> bool:
        """Make the pod's volumes, or refresh them; False when one cannot be had yet."""
        try:
            await self._tools.preparation.volumes(pod)
        except MountError as error:
            now = self._tools.clock.now()
            self._tools.record(pod, "Warning", "FailedMount", str(error))
            self._mounts.advance("", now, now)
            entry = self._mounts.get("")
            self._holds.hold("", Waiting("ContainerCreating"), now + (entry.delay if entry else CONFIG_RETRY_SECONDS))
            return False
        self._mounts.forget("")
        return True

    async def start(self, pod: Pod, action: syncpod.StartContainer, found: syncpod.Found) -> str:
        """One container, from its image to the end of its postStart hook; returns its id when the hook failed, else ""."""
        tools, now = self._tools, self._tools.clock.now()
        wanted, sandbox = container(pod, action.name), found.ready_sandbox
        if wanted is None or sandbox is None:
            return ""
        action = self._numbered(pod, action, found)
        try:
            prepared = await tools.preparation.container(pod, wanted, sandbox)
            config = convert.container_config(pod, wanted, action.attempt, prepared, tools.node())
            config = msgspec.structs.replace(config, pid_target=ephemeral.target_id(wanted, found))
            prepare = tools.preparation.messages.prepare
            messages = await asyncio.to_thread(prepare, self._uid, wanted, action.attempt)
            config = msgspec.structs.replace(config, mounts=config.mounts + messages)
            container_id = await self._create(sandbox.id, config, pod)
            tools.record(pod, "Normal", "Created", "Container created", wanted.name)
            self._holds.release(wanted.name)
            if action.after:
                self.restarts.advance(wanted.name, action.after, now)
            await tools.runtime.start_container(container_id)
            tools.record(pod, "Normal", "Started", "Container started", wanted.name)
            await self._forget_older(found.runs_of(wanted.name)[1:])
            if wanted.lifecycle is not None and wanted.lifecycle.post_start is not None:
                at = hooks.address(sandbox.ips, tools.node().ip, host_network=pod.spec.host_network)
                return await self._post_start(Asked(pod, wanted, container_id, at), wanted.lifecycle.post_start)
        except ImageUnavailable as error:
            self._holds.hold(wanted.name, error.waiting, error.retry_at)
        except env.ConfigError as error:
            self._fail(pod, wanted, Waiting("CreateContainerConfigError", str(error)))
        except NotCreated as error:
            self._fail(pod, wanted, Waiting("CreateContainerError", str(error)), _retry_seconds(error.why))
        except cri.RuntimeServiceError as error:
            await self._start_failed(pod, wanted, action, error)
        except OSError as error:
            if error.filename is None:  # no file of the node's, whose disk may be full; somebody does not answer, maybe
                raise
            self._fail(pod, wanted, Waiting("CreateContainerError", f"{error.filename}: {error.strerror}"))
        return ""

    def _numbered(self, pod: Pod, action: syncpod.StartContainer, found: syncpod.Found) -> syncpod.StartContainer:
        """A container that the runtime knows nothing of is counted by its logs, as a kubelet does: a power cut forgets records."""
        if found.latest(action.name) is not None:
            return action
        logs = f"{self._tools.logs_dir}/{log_directory_name(pod)}/{action.name}"
        return msgspec.structs.replace(action, attempt=logfiles.next_attempt(logs))

    async def _create(self, sandbox_id: str, config: cri.ContainerConfig, pod: Pod) -> str:
        tools = self._tools
        if tools.memory is not None:
            config = tools.memory.placed(config, pod)
        try:
            if tools.cpus is None:
                return await tools.runtime.create_container(sandbox_id, config)
            async with tools.cpus.placing(config, pod) as placed:
                return await tools.runtime.create_container(sandbox_id, placed)
        except cri.RuntimeServiceError as error:
            raise NotCreated(error) from error

    async def _post_start(self, asked: Asked, handler: LifecycleHandler) -> str:
        """Others see the container as running once its hook is done; `interrupt` leaves the hook, not the container."""
        self._hook = asyncio.create_task(hooks.run(self._tools.runtime, self._tools.clock, asked, handler))
        try:
            await asyncio.wait({self._hook})
            if self._hook.cancelled() or (failed := self._hook.exception()) is None:
                return ""
            if not isinstance(failed, hooks.HookError):
                raise failed
            name = asked.container.name
            self._tools.record(asked.pod, "Warning", "FailedPostStartHook", "PostStartHook failed", name)
            self._holds.hold(name, Waiting(POST_START_FAILED, str(failed)), self._tools.clock.now())
            return asked.container_id
        finally:
            self._hook.cancel()
            self._hook = None

    async def _forget_older(self, runs: list[cri.ContainerStatus]) -> None:
        """Of a container that keeps ending the last run is kept, for its log and its lastState."""
        for each in runs:
            await self._tools.runtime.remove_container(each.id)
            self._tools.preparation.messages.forget(self._uid, each.name, each.attempt)
            for path in glob.glob(f"{glob.escape(each.log_path)}*") if each.log_path else ():
                Path(path).unlink(missing_ok=True)

    def interrupt(self) -> None:
        """The pod is to end: a postStart hook that is under way is called off."""
        if self._hook is not None:
            self._hook.cancel()

    async def _start_failed(
        self, pod: Pod, wanted: Container, action: syncpod.StartContainer, error: cri.RuntimeServiceError
    ) -> None:
        """What the runtime recorded as ended follows the restart policy, after the second that a kubelet needs to see it.

        Anything else is tried again later.
        """
        reason = "CreateContainerError" if error.reason == "CreateContainerError" else RUN_FAILED
        last = (await self._tools.find(self._uid)).latest(wanted.name)
        ended = last is not None and last.attempt == action.attempt and last.state is cri.ContainerState.EXITED
        if ended and last is not None and not should_restart(pod, wanted, last):
            self._tools.record(pod, "Warning", "Failed", f"Error: {error}", wanted.name)
            return
        retry = FAILED_RUN_SECONDS if ended else _retry_seconds(error)
        self._fail(pod, wanted, Waiting(reason, str(error)), retry)

    def _fail(self, pod: Pod, wanted: Container, waiting: Waiting, retry_seconds: float = CONFIG_RETRY_SECONDS) -> None:
        self._tools.record(pod, "Warning", "Failed", f"Error: {waiting.message}", wanted.name)
        self._holds.hold(wanted.name, waiting, self._tools.clock.now() + retry_seconds)

    def back_off(self, pod: Pod, wait: syncpod.Wait) -> None:
        """A container that keeps ending has to wait; each new wait is told once. What failed just now is seen before that."""
        if self._holds.is_held(wait.name) and self._holds.waiting()[wait.name].reason == RUN_FAILED:
            return
        where = f"{pod.metadata.name}_{pod.metadata.namespace}({self._uid})"
        message = f"back-off {times.duration(wait.delay)} restarting failed container={wait.name} pod={where}"
        self._holds.hold(wait.name, Waiting(BACKING_OFF, message), wait.until)
        if self._told_backoff.get(wait.name) != wait.delay:
            self._told_backoff[wait.name] = wait.delay
            event = f"Back-off restarting failed container {wait.name} in pod {where}"
            self._tools.record(pod, "Warning", "BackOff", event, wait.name)


def _retry_seconds(error: cri.RuntimeServiceError) -> float:
    """A process of ours that died is back within a second; anything else has a reason that lasts."""
    return UNAVAILABLE_RETRY_SECONDS if error.reason == "RuntimeUnavailable" else CONFIG_RETRY_SECONDS
