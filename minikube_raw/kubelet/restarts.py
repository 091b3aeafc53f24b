"""Whether a container that has ended is started again: rules of the container, then its policy, then the pod's. Pure.

A rule (restartPolicyRules, KEP-5307 and KEP-5532) that matches the exit code decides alone; an init container of a pod that always
restarts is restarted only when it failed.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet.pods import all_containers, is_sidecar
from minikube_raw.runtime.cri import ContainerState, ContainerStatus

RESTART_ALL = "RestartAllContainers"


def should_restart(pod: Pod, container: Container, last: ContainerStatus) -> bool:
    """Whether the last run of a container, which is not running any more, is to be followed by another."""
    if last.state is ContainerState.CREATED:
        return True
    if _action(container, last):
        return True
    policy = policy_of(pod, container)
    if policy == "OnFailure":
        return last.exit_code != 0 or last.state is ContainerState.UNKNOWN
    return policy == "Always"


def policy_of(pod: Pod, container: Container) -> str:
    """Always, OnFailure or Never, as it holds for one container."""
    is_init = any(each.name == container.name for each in pod.spec.init_containers)
    policy = container.restart_policy or pod.spec.restart_policy
    return "OnFailure" if is_init and policy == "Always" and not is_sidecar(container) else policy


class WholeRestart(msgspec.Struct, frozen=True):
    """A container has ended in a way that restarts the whole pod: runs made before `since` (ns) belong to an earlier life.

    `running`: some of those have not ended yet; `begun`: the next life has.
    """

    since: int
    running: bool
    begun: bool


def could_restart_all(pod: Pod) -> bool:
    """Whether a rule of some container can restart the whole pod."""
    return any(rule.action == RESTART_ALL for each in all_containers(pod) for rule in each.restart_policy_rules)


def whole_restart(pod: Pod, runs: Iterable[ContainerStatus]) -> WholeRestart | None:
    """The last restart of all the pod's containers, as far as their runs tell; ephemeral containers are none of them."""
    if not could_restart_all(pod):
        return None
    known = {each.name: each for each in all_containers(pod)}
    ours = [run for run in runs if run.name in known]
    asked = [
        run.finished_at
        for run in ours
        if run.state is ContainerState.EXITED and _action(known[run.name], run) == RESTART_ALL
    ]
    if not asked:
        return None
    since = max(asked)
    running = any(run.state is ContainerState.RUNNING and run.created_at < since for run in ours)
    return WholeRestart(since, running, any(run.created_at >= since for run in ours))


def _action(container: Container, last: ContainerStatus) -> str:
    """What the first rule asks for that matches the exit code; "" when none does."""
    for rule in container.restart_policy_rules:
        if rule.exit_codes is not None:
            listed = last.exit_code in rule.exit_codes.values
            if listed == (rule.exit_codes.operator == "In"):
                return rule.action
    return ""
