"""What statuses say of containers while all of a pod's are restarted (RestartAllContainers, KEP-5532), and afterwards. Pure.

Where a kubelet has removed the containers of the earlier life, ours are kept for their logs; statuses say what a kubelet's say.
"""

from __future__ import annotations

from typing import Any

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet.circumstances import Circumstances
from minikube_raw.kubelet.restarts import WholeRestart
from minikube_raw.kubelet.syncpod import Found
from minikube_raw.runtime.cri import ContainerState

Json = dict[str, Any]
REASON = "RestartingAllContainers"
_MESSAGE = "The container is removed because RestartAllContainers in place"
ENDED: Json = {
    "terminated": {"exitCode": 137, "reason": REASON, "message": _MESSAGE, "startedAt": None, "finishedAt": None}
}


def begins_anew(container: Container, found: Found, restart: WholeRestart, around: Circumstances) -> bool:
    """Whether a container has ended with its pod's earlier life, and has not been started in the next one.

    The one that asked for the restart is shown as it ended as long as others of that life run, and while it has to wait.
    """
    last = found.latest(container.name)
    if last is None or last.created_at >= restart.since or last.state is ContainerState.RUNNING:
        return False
    if around.terminating or around.terminated or around.ending is not None:
        return False
    asked = last.finished_at == restart.since
    return not (asked and (around.restarting or container.name in around.waiting))


def waiting(pod: Pod, container: Container, restart: WholeRestart, around: Circumstances) -> Json:
    """The state of a container that begins anew."""
    if (held := around.waiting.get(container.name)) is not None:
        return {"waiting": {"reason": held.reason, "message": held.message}}
    if not restart.begun:
        return {"waiting": {"reason": REASON, "message": _MESSAGE}}
    return {"waiting": {"reason": "PodInitializing" if pod.spec.init_containers else "ContainerCreating"}}


def ended_with_all(container: Container, found: Found, restart: WholeRestart | None, before: Json) -> bool:
    """Whether the run before the newest ended with an earlier life; `before` is the status the container had.

    That status is the memory: what asked for the restart is forgotten with its run.
    """
    runs = found.runs_of(container.name)
    written = before.get("lastState", {}).get("terminated") or {}
    if runs and written.get("reason") == REASON and before.get("restartCount") == runs[0].attempt:
        return True
    ended = next((run for run in runs if restart is not None and run.created_at < restart.since), None)
    return ended is not None and ended is not runs[0] and ended is runs[1]
