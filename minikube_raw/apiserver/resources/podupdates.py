"""What may change in a pod once it exists: images, a shorter deadline, more tolerations (ValidatePodUpdate, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.resources import volumevalidation
from minikube_raw.apiserver.resources.strategy import Object

_RULE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_CONTAINER_LISTS = ("containers", "initContainers")


def validate_update(new: Object, old: Object) -> Iterator[Cause]:
    """Judge an update of the pod itself."""
    spec, held = new["spec"], old["spec"]
    if any(len(spec.get(kind) or ()) != len(held.get(kind) or ()) for kind in _CONTAINER_LISTS):
        yield field.forbidden("spec.containers", "pod updates may not add or remove containers")
        return
    yield from _deadline(spec, held)
    if spec.get("tolerations") != held.get("tolerations"):
        yield from _tolerations(spec.get("tolerations") or [], held.get("tolerations") or [])
    yield from _gates(spec.get("schedulingGates") or [], held.get("schedulingGates") or [])
    if _fixed(spec, held) != _fixed(held, held):
        yield field.forbidden("spec", _RULE)


def _deadline(spec: Object, held: Object) -> Iterator[Cause]:
    new, old = spec.get("activeDeadlineSeconds"), held.get("activeDeadlineSeconds")
    path = "spec.activeDeadlineSeconds"
    if new is None and old is not None:
        yield field.invalid(path, None, "must not update from a positive integer to nil value")
    elif new is not None and old is not None and new > old:
        yield field.invalid(path, new, "must be less than or equal to previous value")


def _tolerations(new: list[Object], old: list[Object]) -> Iterator[Cause]:
    def timeless(toleration: Object) -> Object:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    kept = [timeless(toleration) for toleration in new]
    if any(timeless(toleration) not in kept for toleration in old):
        yield field.forbidden(
            "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
        )


def _gates(new: list[Object], old: list[Object]) -> Iterator[Cause]:
    for index, gate in enumerate(new):
        if gate not in old:
            text = f"only deletion is allowed, but found new scheduling gate '{gate.get('name', '')}'"
            yield field.forbidden(f"spec.schedulingGates[{index}].name", text)


def _fixed(spec: Object, held: Object) -> Object:
    """The spec with everything that may change set to what `held` has."""
    fixed = dict(spec)
    for kind in _CONTAINER_LISTS:
        if kind in fixed:
            pairs = zip(fixed[kind], held[kind], strict=True)
            fixed[kind] = [{**container, "image": before.get("image")} for container, before in pairs]
    free = ["activeDeadlineSeconds", "tolerations", "schedulingGates"]
    if held.get("schedulingGates"):  # a gated pod may still be directed to fewer nodes
        free += ["nodeSelector", "affinity"]
    if held.get("terminationGracePeriodSeconds", 0) < 0 and fixed.get("terminationGracePeriodSeconds") == 1:
        free.append("terminationGracePeriodSeconds")
    for name in free:
        fixed.pop(name, None)
        if name in held:
            fixed[name] = held[name]
    return fixed


def validate_status(new: Object, old: Object) -> Iterator[Cause]:
    """Judge an update of the status."""
    for name in ("podIPs", "hostIPs"):
        for index, address in enumerate(new.get("status", {}).get(name) or ()):
            ip = (address or {}).get("ip", "")
            if not volumevalidation.is_ip(ip):
                detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                yield field.invalid(f"status.{name}[{index}]", ip, detail)
