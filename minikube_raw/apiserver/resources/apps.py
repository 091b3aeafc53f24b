"""Deployments and ReplicaSets: defaults, validation, columns (apis/apps, registry/apps, v1.36)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from minikube_raw.api import ages, scheme, selectors
from minikube_raw.api.meta import LabelSelector
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.resources import podspec, podvalidation, scheduling
from minikube_raw.apiserver.resources.strategy import (
    AGE_COLUMN,
    NAME_COLUMN,
    Column,
    Object,
    Strategy,
    bump_generation,
)

_PERCENT = re.compile(r"[0-9]+%")
_COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")


def _default_template(spec: Object) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    podspec.default_spec(template.setdefault("spec", {}))


def _default_deployment(deployment: Object) -> None:
    spec = deployment.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    _default_template(spec)
    strategy = spec.setdefault("strategy", {})
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    deployment.setdefault("status", {})


def _default_replica_set(replica_set: Object) -> None:
    spec = replica_set.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    _default_template(spec)
    replica_set.setdefault("status", {}).setdefault("replicas", 0)


def _start(status: Object) -> Callable[[Object], None]:
    def prepare(obj: Object) -> None:
        obj["status"] = dict(status)
        obj["metadata"]["generation"] = 1

    return prepare


def _update(new: Object, old: Object) -> None:
    new["status"] = old.get("status", {})
    bump_generation(new, old)


def _validate_deployment(deployment: Object) -> Iterator[Cause]:
    spec = deployment["spec"]
    yield from _not_negative(spec, "replicas")
    yield from _selector(spec, "deployment")
    yield from _template(spec)
    yield from _strategy(spec["strategy"])
    for name in ("minReadySeconds", "revisionHistoryLimit"):
        yield from _not_negative(spec, name)
    deadline = spec.get("progressDeadlineSeconds")
    yield from _not_negative(spec, "progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        yield field.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


def _validate_replica_set(replica_set: Object) -> Iterator[Cause]:
    spec = replica_set["spec"]
    yield from _not_negative(spec, "replicas")
    yield from _not_negative(spec, "minReadySeconds")
    yield from _selector(spec, "replicaset")
    yield from _template(spec)


def _not_negative(obj: Object, name: str, path: str = "spec") -> Iterator[Cause]:
    value = obj.get(name)
    if value is not None and value < 0:
        yield field.invalid(f"{path}.{name}", value, "must be greater than or equal to 0")


def _selector(spec: Object, kind: str) -> Iterator[Cause]:
    selector = spec.get("selector")
    if selector is None:
        yield field.required("spec.selector")
        return
    wrong = list(scheduling.label_selector(selector, "spec.selector"))
    yield from wrong
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield field.invalid("spec.selector", selector, f"empty selector is invalid for {kind}")
    if wrong:
        yield field.invalid("spec.selector", selector, "invalid label selector")


def _template(spec: Object) -> Iterator[Cause]:
    template, selector = spec["template"], spec.get("selector") or {}
    labels = (template.get("metadata") or {}).get("labels")
    if _is_invalid(selector):
        return
    empty = not selector.get("matchLabels") and not selector.get("matchExpressions")
    if not (empty and spec.get("selector") is not None) and (empty or not _parsed(selector).matches(labels or {})):
        yield field.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    for key, value in (labels or {}).items():
        yield from scheduling.node_selector({key: value}, "spec.template.labels")
    pod_spec = template["spec"]
    yield from podvalidation.validate_spec(pod_spec, "spec.template.spec")
    if pod_spec.get("restartPolicy") not in (None, "Always"):
        yield field.not_supported("spec.template.spec.restartPolicy", pod_spec["restartPolicy"], ("Always",))
    if pod_spec.get("activeDeadlineSeconds") is not None:
        text = "activeDeadlineSeconds in ReplicaSet is not Supported"
        yield field.forbidden("spec.template.spec.activeDeadlineSeconds", text)


def _is_invalid(selector: Object) -> bool:
    return any(scheduling.label_selector(selector, ""))


def _parsed(selector: Object) -> selectors.Selector:
    return selectors.from_view(msgspec.convert(selector, LabelSelector))


def _strategy(strategy: Object) -> Iterator[Cause]:
    path = "spec.strategy.rollingUpdate"
    rolling: Any = strategy.get("rollingUpdate")
    if strategy["type"] == "Recreate":
        if rolling is not None:
            yield field.forbidden(path, "may not be specified when strategy `type` is 'Recreate'")
        return
    if strategy["type"] != "RollingUpdate":
        shown = {"Type": strategy["type"], "RollingUpdate": rolling}
        yield field.not_supported("spec.strategy", shown, ("Recreate", "RollingUpdate"))
        return
    unavailable, surge = rolling["maxUnavailable"], rolling["maxSurge"]
    yield from _count_or_percent(unavailable, f"{path}.maxUnavailable")
    yield from _count_or_percent(surge, f"{path}.maxSurge")
    if unavailable in (0, "0%") and surge in (0, "0%"):
        yield field.invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0")
    if isinstance(unavailable, str) and _PERCENT.fullmatch(unavailable) and int(unavailable[:-1]) > 100:
        yield field.invalid(f"{path}.maxUnavailable", unavailable, "must not be greater than 100%")


def _count_or_percent(value: Any, path: str) -> Iterator[Cause]:
    if isinstance(value, str):
        if not _PERCENT.fullmatch(value):
            text = (
                "a valid percent string must be a numeric string followed by an ending '%' "
                "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
            )
            yield field.invalid(path, value, text)
    elif value < 0:
        yield field.invalid(path, value, "must be greater than or equal to 0")


def _warnings(obj: Object) -> Iterator[str]:
    yield from podvalidation.hostname_warning(obj, "Pod names and hostnames")
    yield from podvalidation.warnings(obj["spec"]["template"]["spec"], "spec.template.spec")


def _validate_update(new: Object, old: Object) -> Iterator[Cause]:
    selector = new["spec"].get("selector")
    if selector != old["spec"].get("selector"):
        yield field.invalid("spec.selector", selector, "field is immutable")


def _validate_status(new: Object, old: Object) -> Iterator[Cause]:
    status = new.get("status") or {}
    for name in (*_COUNTS, "fullyLabeledReplicas", "observedGeneration"):
        yield from _not_negative(status, name, "status")
    replicas = status.get("replicas", 0)
    for name in ("updatedReplicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"):
        count = status.get(name, 0)
        if count > replicas and (name in status or name != "fullyLabeledReplicas"):
            yield field.invalid(f"status.{name}", count, "cannot be greater than status.replicas")


def selector_text(selector: Object | None) -> str:
    """Write a label selector as `kubectl get -o wide` shows it: labels first, then expressions."""
    if not selector:
        return "<none>"
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for entry in selector.get("matchExpressions") or ():
        parts.append(str(selectors.expression(entry["key"], entry["operator"], tuple(entry.get("values") or ()))))
    return ",".join(sorted(parts)) or "<none>"


_WIDE = (
    Column("Containers", description="Names of each container in the template.", priority=1),
    Column("Images", description="Images referenced by each container in the template.", priority=1),
    Column("Selector", description="Label selector for pods.", priority=1),
)


def _wide(spec: Object) -> list[str]:
    containers = spec.get("template", {}).get("spec", {}).get("containers") or []
    names_, images = (",".join(c.get(key, "") for c in containers) for key in ("name", "image"))
    return [names_, images, selector_text(spec.get("selector"))]


def _deployment_cells(deployment: Object, now: datetime) -> list[Any]:
    spec, status, metadata = deployment["spec"], deployment.get("status", {}), deployment["metadata"]
    return [
        metadata["name"],
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        ages.age(metadata.get("creationTimestamp"), now),
        *_wide(spec),
    ]


def _replica_set_cells(replica_set: Object, now: datetime) -> list[Any]:
    spec, status, metadata = replica_set["spec"], replica_set.get("status", {}), replica_set["metadata"]
    return [
        metadata["name"],
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        ages.age(metadata.get("creationTimestamp"), now),
        *_wide(spec),
    ]


DEPLOYMENT = Strategy(
    kind=scheme.DEPLOYMENT,
    default=_default_deployment,
    prepare_for_create=_start({}),
    prepare_for_update=_update,
    validate=_validate_deployment,
    validate_update=_validate_update,
    validate_status=_validate_status,
    warnings=_warnings,
    columns=(
        NAME_COLUMN,
        Column("Ready", description="Number of the pod with ready state"),
        Column("Up-to-date", description="Pods of the latest template."),
        Column("Available", description="Pods ready for at least minReadySeconds."),
        AGE_COLUMN,
        *_WIDE,
    ),
    cells=_deployment_cells,
)
REPLICA_SET = Strategy(
    kind=scheme.REPLICA_SET,
    default=_default_replica_set,
    prepare_for_create=_start({"replicas": 0}),
    prepare_for_update=_update,
    validate=_validate_replica_set,
    validate_update=_validate_update,
    validate_status=_validate_status,
    warnings=_warnings,
    columns=(
        NAME_COLUMN,
        Column("Desired", "integer", "The number of desired replicas."),
        Column("Current", "integer", "The most recently observed number of replicas."),
        Column("Ready", "integer", "The number of ready replicas."),
        AGE_COLUMN,
        *_WIDE,
    ),
    cells=_replica_set_cells,
)
STRATEGIES = (DEPLOYMENT, REPLICA_SET)
