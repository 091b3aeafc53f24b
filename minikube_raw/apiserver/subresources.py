"""Subresources that change an object in their own way: scale, binding, eviction, finalize. Each is a small merge over `writes`."""

from __future__ import annotations

from minikube_raw.api import scale_owners, status, times
from minikube_raw.api.scheme import Kind
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.registry import Now
from minikube_raw.apiserver.resources.apps import selector_text
from minikube_raw.apiserver.resources.strategy import Object

SCALE = Kind(
    group="autoscaling",
    version="v1",
    kind="Scale",
    plural="scales",
    singular="scale",
    definition="io.k8s.api.autoscaling.v1.Scale",
)
BINDING = Kind(
    group="",
    version="v1",
    kind="Binding",
    plural="bindings",
    singular="binding",
    definition="io.k8s.api.core.v1.Binding",
)
EVICTION = Kind(
    group="policy",
    version="v1",
    kind="Eviction",
    plural="evictions",
    singular="eviction",
    definition="io.k8s.api.policy.v1.Eviction",
)


def scale_of(obj: Object, *, owners: bool = False) -> Object:
    """Return the Scale of a workload; with `owners` also who owns its fields, as server-side apply has to know."""
    metadata = {key: obj["metadata"][key] for key in _SCALE_METADATA if key in obj["metadata"]}
    if owners:
        metadata["managedFields"] = scale_owners.of_scale(obj["metadata"].get("managedFields"), SCALE.api_version)
    selector = selector_text(obj["spec"].get("selector"))
    status_ = {"replicas": obj.get("status", {}).get("replicas", 0), "selector": selector}
    spec = {"replicas": obj["spec"]["replicas"]} if obj["spec"].get("replicas") else {}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status_}


_SCALE_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scaled(obj: Object, scale: Object, *, owners: bool = False) -> Object:
    """Return the workload with the wanted replicas, with `owners` also with the Scale's. Raises 400 (names), 409 (uid), 422."""
    metadata, held = scale.get("metadata") or {}, obj["metadata"]
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    if replicas < 0:
        cause = field.invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise status.invalid("autoscaling", "Scale", held["name"], [cause])
    obj["spec"]["replicas"] = replicas
    if metadata.get("resourceVersion"):
        held["resourceVersion"] = metadata["resourceVersion"]
    if owners:
        entries = held.get("managedFields"), metadata.get("managedFields")
        held["managedFields"] = scale_owners.of_workload(*entries, obj["apiVersion"])
    return obj


def bound(pod: Object, binding: Object, now: Now) -> Object:
    """Return the pod placed on the binding's node (registry/core/pod/storage, assignPod). Raises 400, 409, 500."""
    name = (binding.get("metadata") or {}).get("name", "")
    if name and name != pod["metadata"]["name"]:
        raise status.bad_request("name in URL does not match name in Binding object")
    target = binding.get("target") or {}
    if target.get("kind") not in (None, "", "Node"):
        cause = field.not_supported("target.kind", target["kind"], ("Node", "<empty>"))
        raise status.StatusError(500, "", f"{cause.field}: {cause.message}")
    if not target.get("name"):
        raise status.StatusError(500, "", "target.name: Required value")
    _check_bindable(pod, binding, target["name"])
    pod["spec"]["nodeName"] = target["name"]
    for kind in ("annotations", "labels"):
        added = (binding.get("metadata") or {}).get(kind) or {}
        if added:
            pod["metadata"][kind] = {**(pod["metadata"].get(kind) or {}), **added}
    _set_scheduled(pod, times.time(now()))
    return pod


def _check_bindable(pod: Object, binding: Object, node: str) -> None:
    name, uid = pod["metadata"]["name"], (binding.get("metadata") or {}).get("uid")
    if uid and uid != pod["metadata"]["uid"]:
        text = (
            f"StorageError: invalid object, Code: 4, Key: /registry/pods/{pod['metadata']['namespace']}/{name}, "
            f"ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, "
            f"UID in object meta: {pod['metadata']['uid']}"
        )
        raise status.conflict("", "pods", name, text)
    if pod["metadata"].get("deletionTimestamp"):
        text = f"pod {name} is being deleted, cannot be assigned to a host"
        raise status.conflict("", "pods/binding", name, text)
    if pod["spec"].get("nodeName"):
        text = f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
        raise status.conflict("", "pods/binding", name, text)
    if pod["spec"].get("schedulingGates"):
        raise status.conflict("", "pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")


def _set_scheduled(pod: Object, moment: str) -> None:
    conditions: list[Object] = pod.setdefault("status", {}).setdefault("conditions", [])
    condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": moment}
    for index, held in enumerate(conditions):
        if held.get("type") == "PodScheduled":
            conditions[index] = condition
            return
    conditions.append(condition)


def finalized(namespace: Object, wish: Object) -> Object:
    """Return the namespace with the finalizers of the wish: how the namespace controller lets go of it."""
    finalizers = (wish.get("spec") or {}).get("finalizers") or []
    namespace["spec"] = {"finalizers": finalizers} if finalizers else {}
    return namespace


def eviction_options(eviction: Object, name: str) -> Object | None:
    """Return the DeleteOptions of an eviction. Raises 400 when it names another pod."""
    given = (eviction.get("metadata") or {}).get("name", name)
    if given != name:
        raise status.bad_request("name in URL does not match name in Eviction object")
    options: Object | None = eviction.get("deleteOptions")
    return options
