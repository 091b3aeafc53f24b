"""storage.k8s.io: StorageClasses, which say who makes a claim's volume and when (apis/storage/validation, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from minikube_raw.api import ages, name_rules, scheme
from minikube_raw.api.status import Cause
from minikube_raw.api.storage import BETA_DEFAULT_CLASS, DEFAULT_CLASS
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources.strategy import AGE_COLUMN, NAME_COLUMN, Column, Object, Strategy

_RECLAIM_POLICIES = ("Delete", "Retain")
_BINDING_MODES = ("Immediate", "WaitForFirstConsumer")
_MAX_PARAMETERS, _MAX_PARAMETER_BYTES = 512, 256 << 10
_IMMUTABLE = ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode")


def is_default(storage_class: Object) -> bool:
    """Whether claims that name no class get this one."""
    annotations = storage_class["metadata"].get("annotations") or {}
    return "true" in (annotations.get(DEFAULT_CLASS), annotations.get(BETA_DEFAULT_CLASS))


def _default(storage_class: Object) -> None:
    storage_class.setdefault("reclaimPolicy", "Delete")
    storage_class.setdefault("volumeBindingMode", "Immediate")
    storage_class.setdefault("provisioner", "")


def _validate(storage_class: Object) -> Iterator[Cause]:
    provisioner = storage_class.get("provisioner", "").lower()
    if not provisioner:
        yield field.required("provisioner")
    else:
        yield from names.causes("provisioner", provisioner, name_rules.qualified_name(provisioner))
    yield from _parameters(storage_class.get("parameters") or {})
    for key, known in (("reclaimPolicy", _RECLAIM_POLICIES), ("volumeBindingMode", _BINDING_MODES)):
        if storage_class[key] not in known:
            yield field.not_supported(key, storage_class[key], known)
    yield from _topologies(storage_class.get("allowedTopologies") or [])


def _parameters(parameters: dict[str, str]) -> Iterator[Cause]:
    if len(parameters) > _MAX_PARAMETERS:
        yield field.too_long("Provisioner Parameters exceeded max allowed", _MAX_PARAMETERS)
        return
    if "" in parameters:
        yield field.invalid("parameters", "", "field can not be empty.")
    if sum(len(key) + len(value or "") for key, value in parameters.items()) > _MAX_PARAMETER_BYTES:
        yield field.too_long("parameters", _MAX_PARAMETER_BYTES)


def _topologies(terms: list[Object]) -> Iterator[Cause]:
    for index, term in enumerate(terms):
        for number, expression in enumerate((term or {}).get("matchLabelExpressions") or ()):
            at, key = f"allowedTopologies[{index}].matchLabelExpressions[{number}]", (expression or {}).get("key", "")
            if not (expression or {}).get("values"):
                yield field.required(f"{at}.values")
            yield from names.causes(f"{at}.key", key, name_rules.qualified_name(key))


def _validate_update(new: Object, old: Object) -> Iterator[Cause]:
    for key in _IMMUTABLE:
        if (new.get(key) or None) != (old.get(key) or None):
            yield field.invalid(key, new.get(key), "field is immutable")


def _cells(storage_class: Object, now: datetime) -> list[Any]:
    metadata = storage_class["metadata"]
    return [
        metadata["name"] + (" (default)" if is_default(storage_class) else ""),
        storage_class["provisioner"],
        storage_class.get("reclaimPolicy", "Delete"),
        storage_class.get("volumeBindingMode", "Immediate"),
        bool(storage_class.get("allowVolumeExpansion")),
        ages.age(metadata.get("creationTimestamp"), now),
    ]


STORAGE_CLASS = Strategy(
    kind=scheme.STORAGE_CLASS,
    default=_default,
    validate=_validate,
    validate_update=_validate_update,
    columns=(
        NAME_COLUMN,
        *(Column(name) for name in ("Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion")),
        AGE_COLUMN,
    ),
    cells=_cells,
)

STRATEGIES = (STORAGE_CLASS,)
