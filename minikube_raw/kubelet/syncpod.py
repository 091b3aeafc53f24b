"""What to do next for one pod: the pod as wished, the containers as found, the clock → a list of actions.

Pure and level-triggered: nothing is remembered but restart waits, and asking again after any crash gives what is left
to do. `podworker` carries the actions out. The rules are computePodActions' of Kubernetes' kuberuntime manager.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet import backoff
from minikube_raw.kubelet.pods import is_sidecar
from minikube_raw.runtime.cri import ContainerState, ContainerStatus, PodSandboxStatus, SandboxState


class RunSandbox(msgspec.Struct, frozen=True, gc=False):
    """Make a (new) sandbox; stop the one named `replaces` first."""

    attempt: int
    replaces: str = ""


class StartContainer(msgspec.Struct, frozen=True, gc=False):
    """Create and start the given attempt of a container; `after` is when its last run ended (0: never ran)."""

    name: str
    attempt: int
    after: float = 0.0


class StopContainer(msgspec.Struct, frozen=True, gc=False):
    """End a container that should not run; message goes into the Killing Event."""

    container_id: str
    name: str
    message: str


class Wait(msgspec.Struct, frozen=True, gc=False):
    """A container waits for its restart; look again at `until` (seconds since the epoch)."""

    name: str
    until: float
    delay: float


class Finish(msgspec.Struct, frozen=True, gc=False):
    """Nothing will run any more: the pod has Succeeded or Failed."""


Action = RunSandbox | StartContainer | StopContainer | Wait | Finish


class Found(msgspec.Struct, frozen=True):
    """What the runtime knows of one pod: sandboxes newest first, containers of all of them, newest attempt first."""

    sandboxes: tuple[PodSandboxStatus, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()

    @property
    def sandbox(self) -> PodSandboxStatus | None:
        """The newest sandbox."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def ready_sandbox(self) -> PodSandboxStatus | None:
        """The sandbox containers can be started in."""
        sandbox = self.sandbox
        return sandbox if sandbox is not None and sandbox.state is SandboxState.READY else None

    def runs_of(self, name: str) -> list[ContainerStatus]:
        """Attempts of a container, newest first."""
        return [each for each in self.containers if each.name == name]

    def latest(self, name: str) -> ContainerStatus | None:
        """The newest attempt of a container."""
        return next(iter(self.runs_of(name)), None)

    def running(self) -> list[ContainerStatus]:
        """Containers with a process, of whichever sandbox."""
        return [each for each in self.containers if each.state is ContainerState.RUNNING]


def found(sandboxes: list[PodSandboxStatus], containers: list[ContainerStatus]) -> Found:
    """Order what the runtime listed: newest attempt first."""
    return Found(
        sandboxes=tuple(sorted(sandboxes, key=lambda each: (each.config.attempt, each.created_at), reverse=True)),
        containers=tuple(sorted(containers, key=lambda each: (each.attempt, each.created_at), reverse=True)),
    )


def should_restart(restart_policy: str, last: ContainerStatus) -> bool:
    """Whether a container that is not running any more is to be started again."""
    if last.state is ContainerState.CREATED:
        return True
    if restart_policy == "OnFailure":
        return last.exit_code != 0 or last.state is ContainerState.UNKNOWN
    return restart_policy == "Always"


def compute_actions(
    pod: Pod,
    found: Found,
    waits: Mapping[str, backoff.Entry | None],
    now: float,
    failed_liveness: Mapping[str, str] | None = None,
) -> list[Action]:
    """Compare wish and finding. `waits`: by container name; `failed_liveness`: container id → probe."""
    sandbox = found.ready_sandbox
    if sandbox is None:
        return _without_sandbox(pod, found)
    actions, ready_for_main = _init_actions(pod, found, waits, now)
    if not ready_for_main:
        return actions
    for container in pod.spec.containers:
        actions += _container_actions(container.name, pod.spec.restart_policy, found, waits, now)
    actions += _unhealthy(found, failed_liveness or {})
    return [Finish()] if is_finished(pod, found) else actions


def is_finished(pod: Pod, found: Found) -> bool:
    """Whether every container has ended for good (or an init container has failed for good)."""
    policy = pod.spec.restart_policy
    if init_failed(pod, found):
        return not found.running()
    if policy == "Always":
        return False
    latest = [found.latest(container.name) for container in pod.spec.containers]
    return all(each is not None and _ended(each) and not should_restart(policy, each) for each in latest)


def init_failed(pod: Pod, found: Found) -> bool:
    """Whether an init container failed in a pod that does not retry."""
    if pod.spec.restart_policy != "Never":
        return False
    plain = [each for each in pod.spec.init_containers if not is_sidecar(each)]
    latest = [found.latest(each.name) for each in plain]
    return any(each is not None and _ended(each) and each.exit_code != 0 for each in latest)


def init_succeeded(container: Container, found: Found) -> bool:
    """Whether an init container is done: ended with 0, or started when it is a sidecar."""
    last = found.latest(container.name)
    if last is None:
        return False
    if is_sidecar(container):
        return last.started_at > 0 or last.state is ContainerState.RUNNING
    return last.state is ContainerState.EXITED and last.exit_code == 0


def _ended(status: ContainerStatus) -> bool:
    return status.state in (ContainerState.EXITED, ContainerState.UNKNOWN)


def _without_sandbox(pod: Pod, found: Found) -> list[Action]:
    """No sandbox can carry containers: finish if nothing is to be restarted, else make one."""
    if found.containers and is_finished(pod, found):
        return [Finish()]
    old = found.sandbox
    if old is None:
        return [RunSandbox(attempt=0)]
    return [RunSandbox(attempt=old.config.attempt + 1, replaces=old.id)]


def _init_actions(
    pod: Pod, found: Found, waits: Mapping[str, backoff.Entry | None], now: float
) -> tuple[list[Action], bool]:
    """Actions for init containers, and whether the main containers' turn has come.

    Once a main container of this sandbox exists, plain init containers are never run again.
    """
    current = found.ready_sandbox
    main_names = {each.name for each in pod.spec.containers}
    main_started = current is not None and any(
        each.sandbox_id == current.id and each.name in main_names for each in found.containers
    )
    if init_failed(pod, found):
        stops: list[Action] = [
            StopContainer(each.id, each.name, f"Stopping container {each.name}") for each in found.running()
        ]
        return stops or [Finish()], False
    actions: list[Action] = []
    policy = "OnFailure" if pod.spec.restart_policy == "Always" else pod.spec.restart_policy
    for container in pod.spec.init_containers:
        if is_sidecar(container):
            actions += _container_actions(container.name, "Always", found, waits, now)
        elif not main_started and not _done_here(container, found):
            last = found.latest(container.name)
            again = last is not None and last.exit_code == 0 and _ended(last)
            actions += _container_actions(
                container.name, "Always" if again else policy, found, {} if again else waits, now
            )
        if not main_started and not _done_here(container, found):
            return actions, False
    return actions, True


def _done_here(container: Container, found: Found) -> bool:
    """Whether an init container is done in the present sandbox; a new sandbox runs them all again."""
    current = found.ready_sandbox
    last = found.latest(container.name)
    return (
        current is not None and last is not None and last.sandbox_id == current.id and init_succeeded(container, found)
    )


def _container_actions(
    name: str, policy: str, found: Found, waits: Mapping[str, backoff.Entry | None], now: float
) -> list[Action]:
    last = found.latest(name)
    if last is None:
        return [StartContainer(name=name, attempt=0)]
    if last.state is ContainerState.RUNNING:
        return []
    if last.state is ContainerState.CREATED:
        here = found.ready_sandbox is not None and last.sandbox_id == found.ready_sandbox.id
        return [StartContainer(name=name, attempt=last.attempt if here else last.attempt + 1)]
    if not should_restart(policy, last):
        return []
    ended = (last.finished_at or last.created_at) / 1e9
    entry = waits.get(name)
    left = backoff.remaining(entry, ended, now)
    if left > 0 and entry is not None:
        return [Wait(name=name, until=now + left, delay=entry.delay)]
    return [StartContainer(name=name, attempt=last.attempt + 1, after=ended)]


def _unhealthy(found: Found, failed: Mapping[str, str]) -> list[Action]:
    return [
        StopContainer(each.id, each.name, f"Container {each.name} failed {failed[each.id]} probe, will be restarted")
        for each in found.running()
        if each.id in failed
    ]
