"""A pod's QoS class from what its containers ask for and may have (apis/core/v1/helper/qos), for status and resize."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minikube_raw.api import quantity
from minikube_raw.apiserver.resources.strategy import Object


def qos_class(spec: Object) -> str:
    """Return the class of what the pod as a whole asks for, else of its containers.

    Guaranteed if all limit cpu and memory to their requests, BestEffort if none asks, else Burstable.
    """
    if own := spec.get("resources"):
        return _class_of([own])
    return _class_of(
        (container or {}).get("resources") or {}
        for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    )


def _class_of(everything: Iterable[Object]) -> str:
    asked, guaranteed = False, True
    for resources in everything:
        limits, requests = _amounts(resources.get("limits")), _amounts(resources.get("requests"))
        asked = asked or bool(limits or requests)
        guaranteed = guaranteed and len(limits) == 2 and all(requests.get(k, v) == v for k, v in limits.items())
    if not asked:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _amounts(amounts: Object | None) -> dict[str, Any]:
    """The cpu and memory that are more than zero; unreadable ones are validation's matter."""
    found = {}
    for name in ("cpu", "memory"):
        try:
            amount = quantity.parse((amounts or {}).get(name, 0))
        except quantity.QuantityError:
            continue
        if amount:
            found[name] = amount
    return found
