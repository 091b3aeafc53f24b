"""cpu.shares of the QoS classes' cgroups, kept as pods come and go (pkg/kubelet/cm/qos_container_manager_linux.go).

A pod's own shares count only among the pods of its class: without this, all best-effort pods of a node together would get
as much CPU as all burstable ones. Guaranteed pods lie beside the classes and need nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import qos
from minikube_raw.linux.cgroups import Limits, manager

log = logging.getLogger(__name__)


def cgroup_writer(cgroup_root: str) -> Callable[[str, int], None]:
    """Return what writes the shares of a cgroup below the node's, making it if it is missing; a failure is logged."""

    def write(cgroup: str, shares: int) -> None:
        try:
            group = manager(f"{cgroup_root}/{cgroup}")
            group.create()
            group.set_limits(Limits(cpu_shares=shares))
        except OSError as error:
            log.warning("cpu shares of %s are not set: %s", cgroup, error)

    return write


class ClassShares:
    """Best effort has the least there is, burstable what its pods ask for together."""

    def __init__(self, write: Callable[[str, int], None]) -> None:
        self._write = write
        self._asked: dict[str, int] = {}  # uid → thousandths of a CPU
        write(qos.parent_of_class(qos.QOSClass.BEST_EFFORT), qos.MIN_SHARES)

    def add(self, pod: Pod) -> None:
        """A pod is about to run here, or asks for another amount."""
        if qos.qos_class(pod) is not qos.QOSClass.BURSTABLE:
            return
        asked = qos.pod_request(pod, qos.milli_cpu)
        if self._asked.get(pod.metadata.uid) != asked:
            self._asked[pod.metadata.uid] = asked
            self._update()

    def remove(self, uid: str) -> None:
        """Nothing is left of a pod; one that was never added is fine."""
        if self._asked.pop(uid, None) is not None:
            self._update()

    def _update(self) -> None:
        self._write(qos.parent_of_class(qos.QOSClass.BURSTABLE), qos.cpu_shares(sum(self._asked.values())))
