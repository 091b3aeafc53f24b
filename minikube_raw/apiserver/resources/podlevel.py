"""spec.resources: what a pod asks for as a whole, defaulted from its containers and judged beside them (KEP-2837)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from minikube_raw.api import quantity
from minikube_raw.api.quantity import Quantity
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.resources import amounts
from minikube_raw.apiserver.resources.strategy import Object

_SUPPORTED = ("cpu", "hugepages-", "memory")
_RESIZABLE = ("cpu", "memory")
Amounts = dict[str, Quantity]


def default(spec: Object) -> None:
    """Let the pod request what its containers do together, else what it limits (defaultPodRequests)."""
    resources = spec.get("resources")
    if not resources:
        return
    requests: Object = dict(resources.get("requests") or {})
    for name, amount in _together(spec, "requests").items():
        if _is_supported(name) and not name.startswith("hugepages-"):
            requests.setdefault(name, str(amount))
    for name, text in (resources.get("limits") or {}).items():
        if _is_supported(name):
            requests.setdefault(name, text)
    if requests:
        resources["requests"] = requests


def validate(spec: Object, path: str) -> Iterator[Cause]:
    """Judge them: known resources, requests within limits, containers within both."""
    resources = spec.get("resources")
    if not resources:
        return
    for kind in ("limits", "requests"):
        for name in sorted(resources.get(kind) or {}):
            if not _is_supported(name):
                yield field.not_supported(f"{path}.resources.{kind}[{name}]", name, _SUPPORTED)
    yield from amounts.requirements(resources, f"{path}.resources")
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, together in sorted(_together(spec, "requests").items()):
        if name in requests and together > quantity.parse(requests[name]):
            text = f"must be greater than or equal to aggregate container requests of {together}"
            yield field.invalid(f"{path}.resources.requests[{name}]", requests[name], text)
    for index, container in enumerate(spec.get("containers") or ()):
        for name, text in sorted((_of(container).get("limits") or {}).items()):
            if name in limits and quantity.parse(text) > quantity.parse(limits[name]):
                at = f"{path}.containers[{index}].resources.limits[{name}]"
                yield field.invalid(at, text, f"must be less than or equal to pod limits of {limits[name]}")


def validate_resize(spec: Object, held: Object) -> Iterator[Cause]:
    """Judge what is asked anew for a pod that runs (KEP-5419): nothing is taken away, only cpu and memory change."""
    new, old = spec.get("resources"), held.get("resources")
    if old and new is None:
        yield field.forbidden("spec.resources", "pod-level resources cannot be removed")
        return
    for kind in ("requests", "limits"):
        if set((old or {}).get(kind) or ()) - set((new or {}).get(kind) or ()):
            yield field.forbidden(f"spec.resources.{kind}", f"pod-level resource {kind} cannot be removed")
    if _fixed(new or {}) != _fixed(old or {}):
        yield field.forbidden("spec", "only cpu and memory resources are mutable at pod-level")


def _fixed(resources: Object) -> dict[str, Amounts]:
    """What no resize changes."""
    listed = {kind: _parsed(resources.get(kind) or {}) for kind in ("requests", "limits")}
    return {
        kind: {name: amount for name, amount in amounts.items() if name not in _RESIZABLE}
        for kind, amounts in listed.items()
    }


def _is_supported(name: str) -> bool:
    return name in _SUPPORTED or name.startswith("hugepages-")


def _of(container: Object | None) -> Object:
    return (container or {}).get("resources") or {}


def _together(spec: Object, kind: str) -> Amounts:
    """What the containers ask for at the pod's widest moment; what is no amount is left out, validation names it."""
    sidecars: Amounts = {}
    widest: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = _parsed(_of(container).get(kind) or {})
        if (container or {}).get("restartPolicy") == "Always":
            sidecars = _sum(sidecars, own)
            own = sidecars
        else:
            own = _sum(sidecars, own)
        widest = {name: max(widest.get(name, Quantity(0)), amount) for name, amount in {**widest, **own}.items()}
    running = sidecars
    for container in spec.get("containers") or ():
        running = _sum(running, _parsed(_of(container).get(kind) or {}))
    return {name: max(amount, widest.get(name, amount)) for name, amount in {**widest, **running}.items()}


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return {name: one.get(name, Quantity(0)) + other.get(name, Quantity(0)) for name in {**one, **other}}


def _parsed(listed: Mapping[str, str]) -> Amounts:
    found = {}
    for name, text in listed.items():
        try:
            found[name] = quantity.parse(text)
        except (quantity.QuantityError, TypeError):
            continue
    return found
