"""How willingly the kernel kills a container when memory runs out: oom_score_adj (pkg/kubelet/qos/policy.go).

Pure. The kernel adds it to a process's share of memory in thousandths: at 1000 it goes first, at -997 nearly last.
"""

from __future__ import annotations

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.pods import is_sidecar

GUARANTEED = -997
BEST_EFFORT = 1000
NODE_CRITICAL = "system-node-critical"


def adjustment(pod: Pod, container: Container, capacity: int) -> int:
    """The oom_score_adj of a container on a node with `capacity` bytes of memory.

    A burstable container's score falls with what it asked for; a sidecar's is never above that of the main containers.
    """
    if pod.spec.priority_class_name == NODE_CRITICAL:
        return GUARANTEED
    klass = qos.qos_class(pod)
    if klass is not qos.QOSClass.BURSTABLE:
        return GUARANTEED if klass is qos.QOSClass.GUARANTEED else BEST_EFFORT
    asked = _asked(pod, container)
    if is_sidecar(container):
        asked = max(asked, min(qos.memory_bytes(qos.requests_of(each)) for each in pod.spec.containers))
    score = 1000 - 1000 * asked // max(capacity, 1)
    return min(max(score, 1000 + GUARANTEED), BEST_EFFORT - 1)


def _asked(pod: Pod, container: Container) -> int:
    """The container's request, with its share of what the pod asked for beyond its containers."""
    own = qos.memory_bytes(qos.requests_of(container))
    if pod.spec.resources is None or not qos.memory_bytes(pod.spec.resources.requests):
        return own
    together = qos.pod_amount(pod, qos.memory_bytes, limits=False)
    rest = qos.memory_bytes(pod.spec.resources.requests) - together
    return own + max(rest, 0) // (len(pod.spec.containers) + len(pod.spec.init_containers))
