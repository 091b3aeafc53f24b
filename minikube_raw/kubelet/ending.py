"""Why and how a pod ends as a whole although nobody deleted it: its deadline has passed, the node needs its room.

Pure. Whoever decides hands an Ending to the pod's worker (`PodWorkers.end`), which stops every container, then shows the
pod as Failed with this reason. That status is the memory: a kubelet that was restarted before it was written decides anew.
"""

from __future__ import annotations

from typing import Any

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import seconds_of

Json = dict[str, Any]
DEADLINE_EXCEEDED = "DeadlineExceeded"
_DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"


class Ending(msgspec.Struct, frozen=True):
    """The end of a pod. `grace` in seconds replaces the pod's own where it is shorter; None leaves it.

    `conditions` are added to the kubelet's own when the pod has ended, e.g. {"type": "DisruptionTarget", "status": "True",
    "reason": "TerminationByKubelet", "message": …}; times are filled in.
    """

    reason: str
    message: str
    grace: int | None = None
    conditions: tuple[Json, ...] = ()
    keeps_volumes: bool = False  # the pod comes back with them after the node's next start

    def hastened(self, other: Ending) -> Ending:
        """This end, but within the grace of another that comes on top of it."""
        graces = [each.grace for each in (self, other) if each.grace is not None]
        return msgspec.structs.replace(self, grace=min(graces, default=None))


DEADLINE = Ending(DEADLINE_EXCEEDED, _DEADLINE_MESSAGE)
_SHUTDOWN_MESSAGE = "Pod was terminated in response to imminent node shutdown."
_DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
# What a kubelet says of pods that it ends because the node goes down (pkg/kubelet/nodeshutdown).
SHUTDOWN = Ending("Terminated", _SHUTDOWN_MESSAGE, conditions=(_DISRUPTED | {"message": _SHUTDOWN_MESSAGE},))


def deadline(pod: Pod, status: Json) -> float | None:
    """When activeDeadlineSeconds are over, in seconds since the epoch: counted from the startTime in the pod's status."""
    allowed = pod.spec.active_deadline_seconds
    started = seconds_of(status.get("startTime")) if allowed is not None else None
    return None if started is None or allowed is None else started + allowed
