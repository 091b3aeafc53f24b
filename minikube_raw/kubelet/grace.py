"""How long a container may take to end: the pod's grace period, and what makes it shorter or longer. Pure."""

from __future__ import annotations

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import convert, probes
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.pods import container, grace_period
from minikube_raw.kubelet.syncpod import StopContainer
from minikube_raw.runtime import cri

_DEFAULT = 30


def seconds(pod: Pod, own: int | None, ending: Ending | None, *, gone: bool) -> float:
    """The grace period at this moment.

    `own` (a probe's) replaces the pod's as long as it is not deleted; an ending may shorten it; `gone`: the object of a
    pod that was being deleted is not there any more, so nothing is worth a wait.
    """
    deleted = pod.metadata.deletion_timestamp is not None
    asked = own if own is not None and not deleted else grace_period(pod)
    asked = 1 if deleted and gone else asked
    shortest = ending.grace if ending is not None else None
    return asked if shortest is None else min(asked, shortest)


def noted(running: list[cri.ContainerStatus]) -> float:
    """For containers whose pod nobody knows any more: what their records say."""
    found = [each.annotations.get(convert.GRACE_PERIOD, "") for each in running]
    return max((int(each) for each in found if each.isdigit()), default=_DEFAULT)


def of_probe(pod: Pod, action: StopContainer) -> int | None:
    """The terminationGracePeriodSeconds of the liveness or startup probe that failed, if it has one."""
    wanted = container(pod, action.name)
    if wanted is None or not action.probe:
        return None
    return probes.probes_of(wanted)[probes.Kind(action.probe)].termination_grace_period_seconds
