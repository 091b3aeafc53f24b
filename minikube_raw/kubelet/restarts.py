"""Whether a container that has ended is started again: rules of the container, then its policy, then the pod's. Pure.

A rule (restartPolicyRules, KEP-5307) that matches the exit code decides alone; an init container of a pod that always
restarts is restarted only when it failed.
"""

from __future__ import annotations

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet.pods import is_sidecar
from minikube_raw.runtime.cri import ContainerState, ContainerStatus


def should_restart(pod: Pod, container: Container, last: ContainerStatus) -> bool:
    """Whether the last run of a container, which is not running any more, is to be followed by another."""
    if last.state is ContainerState.CREATED:
        return True
    if _rule_matches(container, last):
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


def _rule_matches(container: Container, last: ContainerStatus) -> bool:
    for rule in container.restart_policy_rules:
        if rule.action == "Restart" and rule.exit_codes is not None:
            listed = last.exit_code in rule.exit_codes.values
            if listed == (rule.exit_codes.operator == "In"):
                return True
    return False
