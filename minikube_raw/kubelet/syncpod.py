"""What to do next for one pod: the pod as wished, the containers as found, the clock → a list of actions.

Pure and level-triggered: nothing is remembered but restart waits, and asking again after any crash gives what is left
to do. `podworker` carries the actions out. The rules are computePodActions' of Kubernetes' kuberuntime manager.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet import backoff
from minikube_raw.kubelet.pods import all_containers, is_sidecar
from minikube_raw.kubelet.pods import container as container_named
from minikube_raw.kubelet.restarts import WholeRestart, policy_of, should_restart, whole_restart
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
    """End a container that should not run; message goes into the Killing Event.

    `probe` is the one that failed, if that is why; `again`: start it anew whatever its restart policy says; `hook`: its
    preStop hook runs before.
    """

    container_id: str
    name: str
    message: str
    probe: str = ""
    again: bool = False
    hook: bool = True


class Wait(msgspec.Struct, frozen=True, gc=False):
    """A container waits for its restart; look again at `until` (seconds since the epoch)."""

    name: str
    until: float
    delay: float


class Pause(msgspec.Struct, frozen=True, gc=False):
    """Nothing is to be done before `until` (seconds since the epoch), and nothing shows it."""

    until: float


class Finish(msgspec.Struct, frozen=True, gc=False):
    """Nothing will run any more: the pod has Succeeded or Failed."""


Action = RunSandbox | StartContainer | StopContainer | Wait | Pause | Finish

SHORTEST_LIFE = 1.0  # seconds from the last container that a whole pod started to its next life


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


class Health(msgspec.Struct, frozen=True):
    """What probes say of containers by id: whose startup probe has not succeeded, and who failed which probe."""

    not_started: frozenset[str] = frozenset()
    failed: Mapping[str, str] = {}


NO_PROBES = Health()


def compute_actions(
    pod: Pod, found: Found, waits: Mapping[str, backoff.Entry | None], now: float, health: Health = NO_PROBES
) -> list[Action]:
    """Compare wish and finding. `waits`: by container name."""
    sandbox = found.ready_sandbox
    if sandbox is None:
        return _without_sandbox(pod, found)
    if (restart := whole_restart(pod, found.containers)) is not None:
        if hindered := _before_restart(pod, found, restart, now):
            return hindered
        found = _later_life(found, restart.since)
    actions, ready_for_main = _init_actions(pod, found, waits, now, health)
    if ready_for_main:
        for container in pod.spec.containers:
            actions += _container_actions(pod, container, found, waits, now)
    if is_finished(pod, found):
        return [Finish()]
    return actions + _stops(pod, found, health)


def _before_restart(pod: Pod, found: Found, restart: WholeRestart, now: float) -> list[Action]:
    """What has to be over before a pod is begun anew: the containers of its earlier life.

    As a kubelet has it, no preStop hooks run, and nobody waits: it has removed the containers whose ends the back-off goes by
    (kuberuntime_manager.go, doBackOff). A kubelet looks about once a second, so a pod that does nothing else gets no faster.
    """
    names = {each.name for each in all_containers(pod)}
    stops: list[Action] = [
        StopContainer(each.id, each.name, f"Stopping container {each.name}", hook=False)
        for each in found.running()
        if each.created_at < restart.since and each.name in names
    ]
    if stops or restart.begun:
        return stops
    until = max(each.created_at for each in found.containers if each.name in names) / 1e9 + SHORTEST_LIFE
    return [Pause(until)] if now < until else []


def _later_life(found: Found, since: int) -> Found:
    """The finding with runs of an earlier life as if they had never started: everything begins anew, but counts on.

    Their ends count for no back-off.
    """
    return Found(
        found.sandboxes,
        tuple(
            msgspec.structs.replace(each, state=ContainerState.CREATED, sandbox_id="", finished_at=0)
            if each.created_at < since
            else each
            for each in found.containers
        ),
    )


def is_finished(pod: Pod, found: Found) -> bool:
    """Whether every main container has ended for good, or an init container has failed for good. Sidecars may still run."""
    if init_failed(pod, found):
        return True
    return all(_is_done(pod, each, found) for each in pod.spec.containers)


def init_failed(pod: Pod, found: Found) -> bool:
    """Whether an init container failed and is not retried."""
    plain = [each for each in pod.spec.init_containers if not is_sidecar(each)]
    latest = [(each, found.latest(each.name)) for each in plain]
    return any(
        last is not None and _ended(last) and last.exit_code != 0 and not should_restart(pod, each, last)
        for each, last in latest
    )


def coming_phase(pod: Pod, found: Found) -> str:
    """Succeeded or Failed when every container has ended for good but that is not shown yet, else ""."""
    if not found.containers or not is_finished(pod, found) or found.running():
        return ""
    if init_failed(pod, found):
        return "Failed"
    latest = [found.latest(each.name) for each in pod.spec.containers]
    return "Failed" if any(each is not None and each.exit_code for each in latest) else "Succeeded"


def init_succeeded(container: Container, found: Found, health: Health = NO_PROBES) -> bool:
    """Whether an init container is done: ended with 0, or, when it is a sidecar, started (its startup probe has succeeded)."""
    last = found.latest(container.name)
    if last is None:
        return False
    if is_sidecar(container):
        return last.state is ContainerState.RUNNING and last.id not in health.not_started
    return last.state is ContainerState.EXITED and last.exit_code == 0


def _is_done(pod: Pod, container: Container, found: Found) -> bool:
    last = found.latest(container.name)
    return last is not None and _ended(last) and not should_restart(pod, container, last)


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
    pod: Pod, found: Found, waits: Mapping[str, backoff.Entry | None], now: float, health: Health
) -> tuple[list[Action], bool]:
    """Actions for init containers, and whether the main containers' turn has come.

    Once a main container of this sandbox exists, plain init containers are never run again.
    """
    current = found.ready_sandbox
    main_names = {each.name for each in pod.spec.containers}
    main_started = current is not None and any(
        each.sandbox_id == current.id and each.name in main_names for each in found.containers
    )
    actions: list[Action] = []
    for container in pod.spec.init_containers:
        done = _done_here(container, found, health)
        if is_sidecar(container):
            actions += _container_actions(pod, container, found, waits, now)
        elif not main_started and not done:
            actions += _plain_init_actions(pod, container, found, waits, now)
        if not main_started and not done:
            return actions, False
    return actions, True


def _plain_init_actions(
    pod: Pod, container: Container, found: Found, waits: Mapping[str, backoff.Entry | None], now: float
) -> list[Action]:
    """One that succeeded in an earlier sandbox runs again at once."""
    last = found.latest(container.name)
    if last is not None and _ended(last) and last.exit_code == 0:
        return [StartContainer(container.name, last.attempt + 1, after=_end_of(last))]
    return _container_actions(pod, container, found, waits, now)


def _done_here(container: Container, found: Found, health: Health) -> bool:
    """Whether an init container is done in the present sandbox; a new sandbox runs them all again."""
    current = found.ready_sandbox
    last = found.latest(container.name)
    return (
        current is not None
        and last is not None
        and last.sandbox_id == current.id
        and init_succeeded(container, found, health)
    )


def _container_actions(
    pod: Pod, container: Container, found: Found, waits: Mapping[str, backoff.Entry | None], now: float
) -> list[Action]:
    name, last = container.name, found.latest(container.name)
    if last is None:
        return [StartContainer(name=name, attempt=0)]
    if last.state is ContainerState.RUNNING:
        return []
    if last.state is ContainerState.CREATED:
        here = found.ready_sandbox is not None and last.sandbox_id == found.ready_sandbox.id
        after = last.finished_at / 1e9
        return [StartContainer(name, last.attempt, after) if here else StartContainer(name, last.attempt + 1, after)]
    if not should_restart(pod, container, last):
        return []
    ended, entry = _end_of(last), waits.get(name)
    left = backoff.remaining(entry, ended, now)
    if left > 0 and entry is not None:
        return [Wait(name=name, until=now + left, delay=entry.delay)]
    return [StartContainer(name=name, attempt=last.attempt + 1, after=ended)]


def _end_of(last: ContainerStatus) -> float:
    return (last.finished_at or last.created_at) / 1e9


def _stops(pod: Pod, found: Found, health: Health) -> list[Action]:
    """Containers that run but should not go on: their image was changed, or a probe has failed."""
    stops: list[Action] = []
    for each in found.running():
        wanted = container_named(pod, each.name)
        if wanted is None:
            continue
        if each.image_name and each.image_name != wanted.image:
            message = f"Container {each.name} definition changed, will be restarted"
            stops.append(StopContainer(each.id, each.name, message, again=True))
        elif (probe := health.failed.get(each.id)) is not None:
            stops.append(StopContainer(each.id, each.name, _failed_probe(pod, wanted, probe), probe))
    return stops


def _failed_probe(pod: Pod, wanted: Container, probe: str) -> str:
    if policy_of(pod, wanted) != "Never" or wanted.restart_policy_rules:
        return f"Container {wanted.name} failed {probe} probe, will be restarted"
    alone = len(pod.spec.containers) == 1
    return f"Stopping container {wanted.name}" if alone else f"Container {wanted.name} failed {probe} probe"
