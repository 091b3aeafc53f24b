"""Validation of what volumes and claims have in common, and of a claim's spec wherever it stands (apis/core/validation, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minikube_raw.api import name_rules, quantity
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources import scheduling
from minikube_raw.apiserver.resources.strategy import Object

# Access modes, and how columns write them.
MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_VOLUME_MODES = ("Block", "Filesystem")


def claim_spec(spec: Object, path: str) -> Iterator[Cause]:
    """Judge a claim's spec at `path`."""
    yield from access_modes(spec, path, "at least 1 access mode is required")
    requests, at = (spec.get("resources") or {}).get("requests") or {}, f"{path}.resources[storage]"
    if "storage" not in requests:
        yield field.required(at)
    else:
        yield from positive(requests["storage"], at)
    if spec.get("storageClassName"):
        yield from names.causes(
            f"{path}.storageClassName", spec["storageClassName"], name_rules.dns_subdomain(spec["storageClassName"])
        )
    yield from volume_mode(spec, path)
    for key in ("dataSource", "dataSourceRef"):
        if spec.get(key) is not None:
            yield from _data_source(spec[key], f"{path}.{key}")
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None and reference is not None and source != reference:
        yield field.invalid(path, {}, "must match dataSourceRef")


def _data_source(source: Object, path: str) -> Iterator[Cause]:
    for key in ("name", "kind"):
        if not source.get(key):
            yield field.required(f"{path}.{key}")
    group = source.get("apiGroup") or ""
    if not group and source.get("kind") != "PersistentVolumeClaim":
        detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        yield field.invalid(path, source.get("kind"), detail)
    elif group:
        yield from names.causes(f"{path}.apiGroup", group, name_rules.dns_subdomain(group))


def access_modes(spec: Object, path: str, detail: str) -> Iterator[Cause]:
    """Judge accessModes, and a claim's selector, which Kubernetes looks at in between; `detail` says why one is needed."""
    modes, at = spec.get("accessModes") or [], f"{path}.accessModes"
    if not modes:
        yield field.required(at, detail)
    if spec.get("selector") is not None:
        yield from scheduling.label_selector(spec["selector"], f"{path}.selector")
    for mode in modes:
        if mode not in MODES:
            yield field.not_supported(at, mode, sorted(MODES))
    if "ReadWriteOncePod" in modes and len(set(modes) & set(MODES)) > 1:
        yield field.forbidden(at, "may not use ReadWriteOncePod with other access modes")


def positive(amount: Any, path: str) -> Iterator[Cause]:
    """Judge an amount that must be more than nothing."""
    if quantity.parse(amount).nanos <= 0:
        yield field.invalid(path, str(quantity.parse(amount)), "must be greater than zero")


def volume_mode(spec: Object, path: str) -> Iterator[Cause]:
    """Judge volumeMode, which may be absent."""
    if spec.get("volumeMode") not in (None, *_VOLUME_MODES):
        yield field.not_supported(f"{path}.volumeMode", spec["volumeMode"], _VOLUME_MODES)
