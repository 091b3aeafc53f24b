"""What the QoS classes' cgroups have of CPU and memory, kept as pods come and go (pkg/kubelet/cm/qos_container_manager_linux.go).

A pod's own shares count only among the pods of its class: without this, all best-effort pods of a node together would get
as much CPU as all burstable ones. Guaranteed pods lie beside the classes and need no shares. Memory is kept from reclaim in a
cgroup as far as in every one above it, up to the node's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.nodecgroup import PODS
from minikube_raw.linux.cgroups import Limits, manager

log = logging.getLogger(__name__)


Write = Callable[[str, Limits], None]


def cgroup_writer(cgroup_root: str) -> Write:
    """Return what writes limits of a cgroup below the node's ("": its own), making it if it is missing; a failure is logged."""

    def write(cgroup: str, limits: Limits) -> None:
        try:
            group = manager(f"{cgroup_root}/{cgroup}")
            group.create()
            group.set_limits(limits)
        except OSError as error:
            log.warning("%s of %s is not set: %s", limits, cgroup or cgroup_root, error)

    return write


class ClassShares:
    """Best effort has the least there is, burstable what its pods ask for together; with `reserves` so it is of memory too."""

    def __init__(self, write: Write, *, reserves: bool = False) -> None:
        self._write = write
        self._reserves = reserves
        self._asked: dict[str, _Asked] = {}  # by uid
        write(qos.parent_of_class(qos.QOSClass.BEST_EFFORT), Limits(cpu_shares=qos.MIN_SHARES))

    def add(self, pod: Pod) -> None:
        """A pod is about to run here, or asks for another amount."""
        klass = qos.qos_class(pod)
        if klass is qos.QOSClass.BEST_EFFORT or (klass is qos.QOSClass.GUARANTEED and not self._reserves):
            return
        asked = _Asked(klass, qos.pod_request(pod, qos.milli_cpu), qos.pod_request(pod, qos.memory_bytes))
        if self._asked.get(pod.metadata.uid) != asked:
            self._asked[pod.metadata.uid] = asked
            self._update()

    def remove(self, uid: str) -> None:
        """Nothing is left of a pod; one that was never added is fine."""
        if self._asked.pop(uid, None) is not None:
            self._update()

    def _update(self) -> None:
        burstable = [each for each in self._asked.values() if each.klass is qos.QOSClass.BURSTABLE]
        shares = qos.cpu_shares(sum(each.millis for each in burstable))
        if not self._reserves:
            return self._write(qos.parent_of_class(qos.QOSClass.BURSTABLE), Limits(cpu_shares=shares))
        low, everything = sum(each.memory for each in burstable), sum(each.memory for each in self._asked.values())
        for cgroup in ("", PODS):
            self._write(cgroup, Limits(memory_min=everything, memory_low=low))
        return self._write(qos.parent_of_class(qos.QOSClass.BURSTABLE), Limits(cpu_shares=shares, memory_low=low))


class _Asked(msgspec.Struct, frozen=True):
    """What one pod asks for: thousandths of a CPU, bytes."""

    klass: qos.QOSClass
    millis: int
    memory: int
