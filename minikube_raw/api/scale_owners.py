"""Who owns a workload's replicas, as seen through its scale subresource and back (apimachinery, managedfields/scalehandler).

A Scale has no managedFields of its own: the workload's entries for `spec.replicas` stand in for them while a Scale is applied.
"""

from __future__ import annotations

from typing import Any

from minikube_raw.api import fieldset, managed_fields
from minikube_raw.api.fieldset import FieldSet
from minikube_raw.api.managed_fields import UPDATE, Manager, Owned

# The path is the same in a Scale and in every workload that has one.
_REPLICAS: FieldSet = {"f:spec": {"f:replicas": {}}}

Object = dict[str, Any]


def _owning(managers: managed_fields.Managers) -> dict[Manager, Owned]:
    return {manager: owned for manager, owned in managers.items() if fieldset.intersection(owned.fields, _REPLICAS)}


def _through(manager: Manager, api_version: str) -> Manager:
    return manager._replace(api_version=api_version if manager.operation == UPDATE else "")


def of_scale(entries: list[Object] | None, scale_version: str) -> list[Object]:
    """Return a workload's managedFields as the Scale's: entries that own the replicas, and of them only these."""
    owning = _owning(managed_fields.decode(entries) or {})
    return managed_fields.encode(
        {
            _through(manager, scale_version): Owned(_REPLICAS, scale_version, owned.time)
            for manager, owned in owning.items()
        }
    )


def of_workload(entries: list[Object] | None, scale_entries: list[Object] | None, api_version: str) -> list[Object]:
    """Return the workload's managedFields once the Scale's have changed; who came to own the replicas has no time."""
    held = managed_fields.decode(entries) or {}
    owning = {_through(manager, api_version) for manager in _owning(managed_fields.decode(scale_entries) or {})}
    kept: dict[Manager, Owned] = {}
    for manager, owned in held.items():
        owns_still = _through(manager, api_version) in owning
        fields = owned.fields if owns_still else fieldset.difference(owned.fields, _REPLICAS)
        if fields:
            kept[manager] = owned._replace(fields=fields)
    came = owning - {_through(manager, api_version) for manager in _owning(held)}
    return managed_fields.encode(kept | {manager: _with_replicas(kept.get(manager), api_version) for manager in came})


def _with_replicas(owned: Owned | None, api_version: str) -> Owned:
    if owned is None:
        return Owned(_REPLICAS, api_version)
    return owned._replace(fields=fieldset.ordered(fieldset.union(owned.fields, _REPLICAS)))
