"""PersistentVolumes and the claims to them: defaults, validation, what may change, columns (apis/core/validation, v1.36).

Who gets which volume is the controller's business (`controllers/binder.py`); that neither goes while it is in use, too.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from minikube_raw.api import ages, name_rules, quantity, scheme, times
from minikube_raw.api.status import Cause
from minikube_raw.api.storage import BETA_CLASS, PV_PROTECTION, PVC_PROTECTION
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources import claimvalidation, podspec, scheduling, volumevalidation
from minikube_raw.apiserver.resources.strategy import (
    AGE_COLUMN,
    NAME_COLUMN,
    Column,
    Object,
    Strategy,
    keep_all_but_status,
    keep_status,
)

_RECLAIM_POLICIES = ("Delete", "Recycle", "Retain")
# What of a PersistentVolume's spec is no source.
_NO_SOURCES = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)
_SNAPSHOT = ("snapshot.storage.k8s.io", "VolumeSnapshot")
_CLAIM = ("", "PersistentVolumeClaim")


def class_of(obj: Object) -> str | None:
    """Return a volume's or claim's class, by annotation too as long ago; None where nobody said one."""
    annotated: str | None = (obj["metadata"].get("annotations") or {}).get(BETA_CLASS)
    return annotated if annotated is not None else obj["spec"].get("storageClassName")


def _protect(finalizer: str) -> Any:
    """StorageObjectInUseProtection: nothing goes while somebody uses it."""

    def admit(obj: Object) -> None:
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if finalizer not in finalizers:
            finalizers.append(finalizer)

    return admit


# --- PersistentVolume ---


def _default_volume(volume: Object) -> None:
    spec = volume.setdefault("spec", {})
    podspec.default_source(spec)
    spec["persistentVolumeReclaimPolicy"] = spec.get("persistentVolumeReclaimPolicy") or "Retain"
    spec.setdefault("volumeMode", "Filesystem")
    podspec.canonical_amounts(spec.get("capacity"))
    status = volume.setdefault("status", {})
    status["phase"] = status.get("phase") or "Pending"


def _start_volume(volume: Object) -> None:
    volume["status"] = {
        "phase": "Pending",
        "lastPhaseTransitionTime": volume["metadata"].get("creationTimestamp"),
    }


def _volume_status(new: Object, old: Object) -> None:
    """Take the status, and note when the phase changed unless the writer did."""
    keep_all_but_status(new, old)
    status, held = new.setdefault("status", {}), old.get("status", {})
    before, after = held.get("lastPhaseTransitionTime"), status.get("lastPhaseTransitionTime")
    if status.get("phase") == held.get("phase"):
        status["lastPhaseTransitionTime"] = after or before
    elif after in (None, before):
        status["lastPhaseTransitionTime"] = times.time()
    if status["lastPhaseTransitionTime"] is None:
        del status["lastPhaseTransitionTime"]


def _validate_volume(volume: Object) -> Iterator[Cause]:
    spec, path = volume["spec"], "spec"
    yield from claimvalidation.access_modes(spec, path, "")
    yield from _capacity(spec.get("capacity") or {}, f"{path}.capacity")
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy not in _RECLAIM_POLICIES:
        yield field.not_supported(f"{path}.persistentVolumeReclaimPolicy", policy, _RECLAIM_POLICIES)
    yield from _node_affinity(spec, path)
    yield from volumevalidation.one_source(_source(spec), path)
    if spec.get("local") is not None and not (spec.get("nodeAffinity") or {}).get("required"):
        yield field.required(f"{path}.nodeAffinity", "Local volume requires node affinity")
    host_path = (spec.get("hostPath") or {}).get("path") or ""
    if policy == "Recycle" and host_path and posixpath.normpath(host_path) in ("/", "//"):
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        yield field.forbidden(f"{path}.persistentVolumeReclaimPolicy", detail)
    yield from _class(spec, path)
    yield from claimvalidation.volume_mode(spec, path)


def _source(spec: Object) -> Object:
    return {name: source for name, source in spec.items() if name not in _NO_SOURCES}


def _capacity(capacity: Object, path: str) -> Iterator[Cause]:
    if not capacity:
        yield field.required(path)
    if capacity.keys() != {"storage"}:
        yield field.not_supported(path, capacity or None, ("storage",))
    for name, amount in sorted(capacity.items()):
        yield from claimvalidation.positive(amount, f"{path}[{name}]")


def _node_affinity(spec: Object, path: str) -> Iterator[Cause]:
    affinity = spec.get("nodeAffinity")
    if affinity is None:
        return
    if affinity.get("required") is None:
        yield field.required(f"{path}.nodeAffinity.required", "must specify required node constraints")
        return
    yield from scheduling.node_terms(affinity["required"], f"{path}.nodeAffinity.required.nodeSelectorTerms")


def _class(spec: Object, path: str) -> Iterator[Cause]:
    for key in ("storageClassName", "volumeAttributesClassName"):
        if name := spec.get(key):
            yield from names.causes(f"{path}.{key}", name, name_rules.dns_subdomain(name))


def _update_volume(new: Object, old: Object) -> Iterator[Cause]:
    spec, held = new["spec"], old["spec"]
    if _source(spec) != _source(held):
        text = "spec.persistentvolumesource is immutable after creation"
        yield field.forbidden("spec.persistentvolumesource", text)
    if spec.get("volumeMode") != held.get("volumeMode"):
        yield field.invalid("volumeMode", spec.get("volumeMode"), "field is immutable")
    if held.get("nodeAffinity") is not None and spec.get("nodeAffinity") != held["nodeAffinity"]:
        detail = "field is immutable, except for updating from beta label to GA"
        yield field.invalid("nodeAffinity", spec.get("nodeAffinity"), detail)


def _volume_cells(volume: Object, now: datetime) -> list[Any]:
    spec, metadata, status = volume["spec"], volume["metadata"], volume.get("status", {})
    claim = spec.get("claimRef")
    return [
        metadata["name"],
        (spec.get("capacity") or {}).get("storage", "0"),
        short_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(volume),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        class_of(volume) or "",
        spec.get("volumeAttributesClassName", "<unset>"),
        status.get("reason", ""),
        ages.age(metadata.get("creationTimestamp"), now),
        spec.get("volumeMode", "<unset>"),
    ]


def short_modes(modes: list[str] | None) -> str:
    """Return access modes as columns show them: RWO,ROX."""
    return ",".join(short for mode, short in claimvalidation.MODES.items() if mode in (modes or ()))


def _phase(obj: Object) -> str:
    going = obj["metadata"].get("deletionTimestamp")
    return "Terminating" if going else str(obj.get("status", {}).get("phase", ""))


VOLUME = Strategy(
    kind=scheme.PERSISTENT_VOLUME,
    default=_default_volume,
    admit=_protect(PV_PROTECTION),
    prepare_for_create=_start_volume,
    prepare_for_update=keep_status,
    prepare_status=_volume_status,
    validate=_validate_volume,
    validate_update=_update_volume,
    columns=(
        NAME_COLUMN,
        *(
            Column(name)
            for name in (
                "Capacity",
                "Access Modes",
                "Reclaim Policy",
                "Status",
                "Claim",
                "StorageClass",
                "VolumeAttributesClass",
                "Reason",
            )
        ),
        AGE_COLUMN,
        Column("VolumeMode", priority=1),
    ),
    cells=_volume_cells,
)


# --- PersistentVolumeClaim ---


def default_claim_spec(spec: Object) -> None:
    """Set what a claim's spec leaves open; pods' ephemeral volumes hold one too."""
    spec.setdefault("volumeMode", "Filesystem")
    for kind in ("limits", "requests"):
        podspec.canonical_amounts(spec.setdefault("resources", {}).get(kind))


def _default_claim(claim: Object) -> None:
    default_claim_spec(claim.setdefault("spec", {}))
    status = claim.setdefault("status", {})
    status["phase"] = status.get("phase") or "Pending"


def _start_claim(claim: Object) -> None:
    claim["status"] = {"phase": "Pending"}
    _normalize_sources(claim["spec"])


def _normalize_sources(spec: Object) -> None:
    """Let dataSource and dataSourceRef tell the same; a dataSource of another kind is as good as none."""
    source = spec.get("dataSource")
    if source is not None and (source.get("apiGroup") or "", source.get("kind")) not in (_SNAPSHOT, _CLAIM):
        del spec["dataSource"]
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif reference is not None and source is None and not reference.get("namespace"):
        spec["dataSource"] = dict(reference)


def _validate_claim(claim: Object) -> Iterator[Cause]:
    yield from claimvalidation.claim_spec(claim["spec"], "spec")


def _update_claim(new: Object, old: Object) -> Iterator[Cause]:
    spec, held = new["spec"], dict(old["spec"])
    fixed = {**spec, "resources": {**spec.get("resources", {})}}
    if not held.get("volumeName") and "volumeName" in spec:  # given once, by the binder
        held["volumeName"] = spec["volumeName"]
    if class_of(old) is None and "storageClassName" in spec:  # a default class that came later
        held["storageClassName"] = spec["storageClassName"]
    if new.get("status", {}).get("phase") == "Bound":
        fixed["resources"]["requests"] = held.get("resources", {}).get("requests")
        fixed["volumeAttributesClassName"] = held.get("volumeAttributesClassName")
    if _without_nothing(fixed) != _without_nothing(held):
        text = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        yield field.forbidden("spec", text)
    yield from _size(spec, held, old.get("status", {}))
    if spec.get("volumeMode") != held.get("volumeMode"):
        yield field.invalid("volumeMode", spec.get("volumeMode"), "field is immutable")


def _without_nothing(spec: Object) -> Object:
    return {name: value for name, value in spec.items() if value is not None}


def _size(spec: Object, held: Object, status: Object) -> Iterator[Cause]:
    """A claim may ask for less again, but not for less than it has."""
    new, old = _storage(spec.get("resources", {}).get("requests")), _storage(held.get("resources", {}).get("requests"))
    if new < old and new <= _storage(status.get("capacity")):
        yield field.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")


def _storage(amounts: Object | None) -> int:
    return quantity.parse((amounts or {}).get("storage", 0)).nanos


def _claim_cells(claim: Object, now: datetime) -> list[Any]:
    spec, metadata, status = claim["spec"], claim["metadata"], claim.get("status", {})
    bound = spec.get("volumeName", "")
    return [
        metadata["name"],
        _phase(claim),
        bound,
        (status.get("capacity") or {}).get("storage", "0") if bound else "",
        short_modes(status.get("accessModes")) if bound else "",
        class_of(claim) or "",
        spec.get("volumeAttributesClassName", "<unset>"),
        ages.age(metadata.get("creationTimestamp"), now),
        spec.get("volumeMode", "<unset>"),
    ]


CLAIM = Strategy(
    kind=scheme.PERSISTENT_VOLUME_CLAIM,
    default=_default_claim,
    admit=_protect(PVC_PROTECTION),
    prepare_for_create=_start_claim,
    prepare_for_update=keep_status,
    prepare_status=keep_all_but_status,
    validate=_validate_claim,
    validate_update=_update_claim,
    columns=(
        NAME_COLUMN,
        *(
            Column(name)
            for name in ("Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass")
        ),
        AGE_COLUMN,
        Column("VolumeMode", priority=1),
    ),
    cells=_claim_cells,
)

STRATEGIES = (CLAIM, VOLUME)
