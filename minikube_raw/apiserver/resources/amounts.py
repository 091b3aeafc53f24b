"""Validation of resource requirements: known names, whole amounts, requests within limits (apis/core/validation, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api import name_rules, quantity
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources.strategy import Object

_STANDARD = frozenset({"cpu", "memory", "ephemeral-storage"})
_INTEGERS = frozenset({"memory", "ephemeral-storage"})
# Standard resources that are not a container's.
_ELSEWHERE = frozenset({"storage", "pods", "services", "secrets", "configmaps", "persistentvolumeclaims"})


def requirements(resources: Object, path: str) -> Iterator[Cause]:
    """Judge a container's `resources`."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    yield from resource_list(limits, f"{path}.limits")
    yield from resource_list(requests, f"{path}.requests")
    for name, amount in sorted(requests.items()):
        yield from _within(name, amount, limits, path)
    every = limits.keys() | requests.keys()
    if any(_is_huge(name) for name in every) and not {"cpu", "memory"} & every:
        yield field.forbidden(path, "HugePages require cpu or memory")


def resource_list(amounts: Object, path: str) -> Iterator[Cause]:
    """Judge amounts by resource name."""
    for name, amount in sorted(amounts.items()):
        yield from _amount(name, amount, f"{path}[{name}]")


def _amount(name: str, amount: str, path: str) -> Iterator[Cause]:
    if wrong := _name(name):
        yield from names.causes(path, name, wrong)
        return
    parsed = quantity.parse(amount)
    if parsed.nanos < 0:
        yield field.invalid(path, str(parsed), "must be greater than or equal to 0")
    elif _is_extended(name) and parsed.nanos % quantity.NANO:
        yield field.invalid(path, str(parsed), "must be an integer")
    elif _is_huge(name) and parsed.nanos % quantity.parse(name.removeprefix("hugepages-")).nanos:
        yield field.invalid(path, str(parsed), f"{parsed} is not positive integer multiple of {name}")


def _name(name: str) -> list[str]:
    wrong = name_rules.qualified_name(name)
    if wrong:
        return wrong
    if "/" in name or name in _STANDARD or _is_huge(name):
        return []
    if name in _ELSEWHERE:
        return ["must be a standard resource for containers"]
    return ["must be a standard resource type or fully qualified", "must be a standard resource for containers"]


def _within(name: str, amount: str, limits: Object, path: str) -> Iterator[Cause]:
    asked = quantity.parse(amount)
    if name not in limits:
        if _is_extended(name) or _is_huge(name):
            yield field.required(f"{path}.limits", "Limit must be set for non overcommitable resources")
        return
    limit = quantity.parse(limits[name])
    if (_is_extended(name) or _is_huge(name)) and asked != limit:
        yield field.invalid(f"{path}.requests", str(asked), f"must be equal to {name} limit of {limit}")
    elif asked > limit:
        yield field.invalid(f"{path}.requests", str(asked), f"must be less than or equal to {name} limit of {limit}")


def _is_extended(name: str) -> bool:
    return "/" in name and not name.startswith("kubernetes.io/")


def _is_huge(name: str) -> bool:
    return name.startswith("hugepages-")


def warnings(resources: Object, path: str) -> Iterator[str]:
    """Say which byte amounts are not whole."""
    for kind in ("limits", "requests"):
        for name, amount in sorted((resources.get(kind) or {}).items()):
            if name in _INTEGERS and quantity.parse(amount).nanos % quantity.NANO:
                yield f'{path}.{kind}[{name}]: fractional byte value "{amount}" is invalid, must be an integer'
