"""Pods: what admission and the strategy do to one between the request and the store (registry/core/pod/strategy.go, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from minikube_raw.api import scheme, status
from minikube_raw.apiserver.resources import (
    podcells,
    podlevel,
    podparts,
    podqos,
    podspec,
    podupdates,
    podvalidation,
    scheduling,
)
from minikube_raw.apiserver.resources.strategy import Head, Object, Strategy, bump_generation, keep_all_but_status

_TOLERATED_SECONDS = 300  # DefaultTolerationSeconds
_NODE_TROUBLES = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
# How long the owner of a deletion may take; used when a pod says nothing (it always does, by default).
_GRACE_SECONDS = 30


class _Spec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    node_name: str = ""
    restart_policy: str = ""
    scheduler_name: str = ""
    service_account_name: str = ""
    host_network: bool = False


class _IP(msgspec.Struct, frozen=True, gc=False):
    ip: str = ""


class _Status(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: list[_IP] = msgspec.field(default_factory=list, name="podIPs")
    nominated_node_name: str = ""


class PodHead(Head, frozen=True, gc=False):
    """What field selectors on pods look at."""

    spec: _Spec = _Spec()
    status: _Status = _Status()


SELECTABLE = {
    "spec.nodeName": lambda pod: pod.spec.node_name,
    "spec.restartPolicy": lambda pod: pod.spec.restart_policy,
    "spec.schedulerName": lambda pod: pod.spec.scheduler_name,
    "spec.serviceAccountName": lambda pod: pod.spec.service_account_name,
    "spec.hostNetwork": lambda pod: "true" if pod.spec.host_network else "false",
    "status.phase": lambda pod: pod.status.phase,
    "status.podIP": lambda pod: pod.status.pod_ip or (pod.status.pod_ips[0].ip if pod.status.pod_ips else ""),
    "status.podIPs": lambda pod: ",".join(address.ip for address in pod.status.pod_ips),
    "status.nominatedNodeName": lambda pod: pod.status.nominated_node_name,
}


def default(pod: Object) -> None:
    """Set what the manifest leaves open."""
    spec = pod.setdefault("spec", {})
    podspec.default_spec(spec)
    podspec.default_requests(spec)
    podlevel.default(spec)
    spec.setdefault("enableServiceLinks", True)
    _mirror_ips(pod.get("status") or {})


def _mirror_ips(pod_status: Object) -> None:
    """Let podIP and podIPs, hostIP and hostIPs tell the same, as conversion does."""
    for one, many in (("podIP", "podIPs"), ("hostIP", "hostIPs")):
        if pod_status.get(many) and one not in pod_status:
            pod_status[one] = pod_status[many][0].get("ip", "")
        elif pod_status.get(one) and many not in pod_status:
            pod_status[many] = [{"ip": pod_status[one]}]


def admit(pod: Object) -> None:
    """Priority and DefaultTolerationSeconds. Raises 403."""
    _admit_priority(pod)
    _admit_tolerations(pod["spec"])


def _admit_tolerations(spec: Object) -> None:
    tolerations: list[Object] = spec.setdefault("tolerations", [])
    for taint in _NODE_TROUBLES:
        if not any(_tolerates(toleration, taint) for toleration in tolerations):
            wanted = {
                "key": taint,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": _TOLERATED_SECONDS,
            }
            tolerations.append(wanted)


def _tolerates(toleration: Object | None, taint: str) -> bool:
    if toleration is None or toleration.get("effect", "NoExecute") not in ("", "NoExecute"):
        return False
    return toleration.get("key", "") in ("", taint)


def _admit_priority(pod: Object) -> None:
    spec, name = pod["spec"], pod["metadata"].get("name", "")
    class_name = spec.get("priorityClassName", "")
    if class_name and class_name not in _PRIORITIES:
        raise status.forbidden("", "pods", name, f"no PriorityClass with name {class_name} was found")
    priority = _PRIORITIES.get(class_name, 0)
    if spec.get("priority", priority) != priority:
        text = (
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
            f"priority admission controller computed {priority} from the given PriorityClass name"
        )
        raise status.forbidden("", "pods", name, text)
    if spec.get("preemptionPolicy", "PreemptLowerPriority") != "PreemptLowerPriority":
        text = (
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
            "priority admission controller computed PreemptLowerPriority from the given PriorityClass name"
        )
        raise status.forbidden("", "pods", name, text)
    spec["priority"] = priority
    spec["preemptionPolicy"] = "PreemptLowerPriority"


def prepare_for_create(pod: Object) -> None:
    """Start the status; what the client wrote there is dropped."""
    pod["status"] = {"phase": "Pending", "qosClass": podqos.qos_class(pod["spec"])}
    if pod["spec"].get("schedulingGates"):
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": pod["metadata"].get("creationTimestamp"),
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }
        pod["status"]["conditions"] = [condition]
    pod["metadata"]["generation"] = 1
    scheduling.merge_label_keys(pod)


def prepare_for_update(new: Object, old: Object) -> None:
    """Keep the status, count generations; tolerations everybody has come back when an update forgets them."""
    new["status"] = old.get("status", {})
    _admit_tolerations(new["spec"])
    bump_generation(new, old)


def prepare_status(new: Object, old: Object) -> None:
    """Keep everything but the status; a deletion cannot be hurried or undone through it."""
    keep_all_but_status(new, old)
    new.setdefault("status", {})
    qos = old.get("status", {}).get("qosClass")
    if qos and not new["status"].get("qosClass"):
        new["status"]["qosClass"] = qos


def grace(pod: Object, asked: int | None) -> int:
    """Return how long the kubelet may take: the client's wish, else the pod's; none where no kubelet has the pod."""
    spec = pod.get("spec", {})
    seconds = asked if asked is not None else spec.get("terminationGracePeriodSeconds") or _GRACE_SECONDS
    if asked is None and spec.get("terminationGracePeriodSeconds") == 0:
        seconds = 0
    if not spec.get("nodeName") or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    return max(int(seconds), 1) if seconds else 0


def warnings(pod: Object) -> Iterator[str]:
    """Say what is accepted and probably not meant (api/pod/warnings.go)."""
    yield from podvalidation.hostname_warning(pod, "the Pod's hostname")
    yield from podvalidation.warnings(pod["spec"], "spec")


STRATEGY = Strategy(
    kind=scheme.POD,
    head=PodHead,
    selectable=SELECTABLE,
    default=default,
    admit=admit,
    prepare_for_create=prepare_for_create,
    prepare_for_update=prepare_for_update,
    prepare_status=prepare_status,
    validate=podvalidation.validate,
    validate_create=podvalidation.validate_create,
    validate_update=podupdates.validate_update,
    validate_status=podupdates.validate_status,
    parts=podparts.PARTS,
    warnings=warnings,
    grace=grace,
    columns=podcells.COLUMNS,
    cells=podcells.cells,
    row_conditions=podcells.conditions,
)
