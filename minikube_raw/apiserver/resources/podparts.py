"""The parts of a pod that change through subresources of their own: ephemeralcontainers and resize (pod/strategy.go, v1.36).

Each takes from the wish what is its own and everything else from the pod as it is, then judges that change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minikube_raw.api import quantity
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.resources import podlevel, podqos
from minikube_raw.apiserver.resources.strategy import Object, Part, bump_generation

MIRROR = "kubernetes.io/config.mirror"
RESIZED_LISTS = ("containers", "initContainers")
_RESIZABLE = ("cpu", "memory")


# --- ephemeralcontainers ---


def _take_ephemeral(new: Object, old: Object) -> None:
    """Keep all but the list of ephemeral containers."""
    wish = (new.get("spec") or {}).get("ephemeralContainers")
    spec = {key: value for key, value in old["spec"].items() if key != "ephemeralContainers"}
    _keep_rest(new, old, spec | ({"ephemeralContainers": wish} if wish else {}))


def _judge_ephemeral(new: Object, old: Object) -> Iterator[Cause]:
    if _is_mirror(old):
        yield field.forbidden("", "static pods do not support ephemeral containers")
        return
    wanted = {each["name"]: each for each in new["spec"].get("ephemeralContainers") or ()}
    path = "spec.ephemeralContainers"
    for held in old["spec"].get("ephemeralContainers") or ():
        if held["name"] not in wanted:
            yield field.forbidden(path, f'existing ephemeral containers "{held["name"]}" may not be removed\n')
        elif held != wanted[held["name"]]:
            yield field.forbidden(path, f'existing ephemeral containers "{held["name"]}" may not be changed\n')


# --- resize ---


def _take_resources(new: Object, old: Object) -> None:
    """Keep all but what the pod and its containers ask for and how they are resized.

    A container of another name stays as wished, to be judged.
    """
    wished = (new.get("spec") or {}).get("resources")
    spec = {key: value for key, value in old["spec"].items() if key != "resources"}
    spec |= {"resources": wished} if wished is not None else {}
    for kind in RESIZED_LISTS:
        wish, held = (new.get("spec") or {}).get(kind) or [], old["spec"].get(kind) or []
        if [each.get("name") for each in wish] != [each["name"] for each in held]:
            spec |= {kind: wish}
        elif held:
            spec |= {kind: [_resized(one, other) for one, other in zip(held, wish, strict=True)]}
    _keep_rest(new, old, spec)


def _resized(held: Object, wish: Object) -> Object:
    own = {key: wish[key] for key in ("resources", "resizePolicy") if key in wish}
    return {key: value for key, value in held.items() if key != "resizePolicy"} | own


def _judge_resize(new: Object, old: Object) -> Iterator[Cause]:
    if _is_mirror(old):
        yield field.forbidden("", "static pods cannot be resized")
        return
    before = (old.get("status") or {}).get("qosClass") or podqos.qos_class(old["spec"])
    if podqos.qos_class(new["spec"]) != before:
        yield field.invalid("spec", before, "Pod QOS Class may not change as a result of resizing")
    if not _node_resizes(old):
        yield field.forbidden("spec", "Pod running on node without support for resize")
    yield from podlevel.validate_resize(new["spec"], old["spec"])
    if disordered := [*_order(new["spec"], old["spec"])]:
        yield from disordered
        return
    for kind in RESIZED_LISTS:
        pairs = zip(new["spec"].get(kind) or (), old["spec"].get(kind) or (), strict=True)
        for index, (one, other) in enumerate(pairs):
            path = f"spec.{kind}[{index}].resources"
            yield from _removed(one.get("resources") or {}, other.get("resources") or {}, path)
            if kind == "initContainers":
                yield from _judge_init(one, other, f"spec.initContainers[{index}]")
            elif _others(one) != _others(other):
                yield field.forbidden("spec", "only cpu and memory resources are mutable")


def _node_resizes(pod: Object) -> bool:
    """Whether the pod runs on a node that reports what its containers have (isPodResizeRequestSupported)."""
    for each in (pod.get("status") or {}).get("containerStatuses") or ():
        if (each.get("state") or {}).get("running") is not None:
            return each.get("resources") is not None
    return False


def _order(spec: Object, held: Object) -> Iterator[Cause]:
    for kind in RESIZED_LISTS:
        names = [each.get("name") for each in spec.get(kind) or ()]
        before = [each["name"] for each in held.get(kind) or ()]
        if len(names) != len(before):
            yield field.forbidden(f"spec.{kind}", f"{kind} may not be added or removed on resize")
            continue
        for index, (name, old_name) in enumerate(zip(names, before, strict=True)):
            if name != old_name:
                text = f"{kind} may not be renamed or reordered on resize"
                yield field.forbidden(f"spec.{kind}[{index}].name", text)


def _removed(new: Object, old: Object, path: str) -> Iterator[Cause]:
    for amounts, word in (("requests", "request"), ("limits", "limit")):
        if set(old.get(amounts) or ()) - set(new.get(amounts) or ()):
            yield field.forbidden(f"{path}.{amounts}", f"resource {word}s cannot be removed")


def _others(container: Object) -> Object:
    """What a container asks for besides cpu and memory."""
    resources = container.get("resources") or {}
    found = {
        kind: {name: amount for name, amount in (resources.get(kind) or {}).items() if name not in _RESIZABLE}
        for kind in ("limits", "requests")
    }
    return found | {"claims": resources.get("claims")}


def _judge_init(new: Object, old: Object, path: str) -> Iterator[Cause]:
    if _others(new) != _others(old):
        yield field.forbidden(path, "only cpu and memory resources for init or sidecar containers are mutable")
    policies = [each.get("restartPolicy") for each in new.get("resizePolicy") or ()]
    if new != old and old.get("restartPolicy") != "Always" and "RestartContainer" in policies:
        text = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
        yield field.forbidden(path, text)


def impossible(pod: Object, allocatable: Object) -> tuple[str, int, int] | None:
    """(resource, asked, allocatable) of what not even an empty node could give: cpu in thousandths, memory in bytes."""
    for name in _RESIZABLE:
        have = _measure(name, allocatable.get(name))
        whole = ((pod["spec"].get("resources") or {}).get("requests") or {}).get(name)
        asked = _measure(name, whole) or sum(
            _measure(name, ((each.get("resources") or {}).get("requests") or {}).get(name))
            for each in pod["spec"].get("containers") or ()
        )
        if have and asked > have:
            return name, asked, have
    return None


def _measure(name: str, amount: Any) -> int:
    try:
        parsed = quantity.parse(amount or 0)
    except quantity.QuantityError:
        return 0  # validation's matter
    return parsed.milli() if name == "cpu" else parsed.value()


# --- both ---


def _keep_rest(new: Object, old: Object, spec: Object) -> None:
    own = {key: new["metadata"][key] for key in ("resourceVersion", "managedFields") if key in new["metadata"]}
    new["metadata"] = {**old["metadata"], **own}
    new["spec"] = spec
    new["status"] = old.get("status", {})
    bump_generation(new, old)


def _is_mirror(pod: Object) -> bool:
    return MIRROR in (pod["metadata"].get("annotations") or {})


PARTS = {
    "ephemeralcontainers": Part(_take_ephemeral, _judge_ephemeral),
    "resize": Part(_take_resources, _judge_resize),
}
