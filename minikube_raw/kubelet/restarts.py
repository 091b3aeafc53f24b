"""Whether a container that has ended is started again: rules of the container, then its policy, then the pod's. Pure.

A rule (restartPolicyRules, KEP-5307 and KEP-5532) that matches the exit code decides alone; an init container of a pod that always
restarts is restarted only when it failed.
"""

from __future__ import annotations

from collections.abc import Iterable

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet.pods import is_sidecar
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


def restarted_since(pod: Pod, runs: Iterable[ContainerStatus]) -> int:
    """When a container last ended in a way that restarts the whole pod, in nanoseconds; 0 when none has.

    Runs made before that belong to an earlier life of the pod.
    """
    known = {each.name: each for each in pod.spec.init_containers + pod.spec.containers}
    return max(
        (
            run.finished_at
            for run in runs
            if run.state is ContainerState.EXITED
            and (wanted := known.get(run.name)) is not None
            and _action(wanted, run) == RESTART_ALL
        ),
        default=0,
    )


def _action(container: Container, last: ContainerStatus) -> str:
    """What the first rule asks for that matches the exit code; "" when none does."""
    for rule in container.restart_policy_rules:
        if rule.exit_codes is not None:
            listed = last.exit_code in rule.exit_codes.values
            if listed == (rule.exit_codes.operator == "In"):
                return rule.action
    return ""
