"""Events in both of their versions: stored as core/v1, converted for events.k8s.io (apis/events/v1/conversion.go, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from minikube_raw.api import ages, name_rules, scheme
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.resources.strategy import Column, Head, Object, Strategy

# events.k8s.io → core/v1
_RENAMED = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_BACK = {core: new for new, core in _RENAMED.items()}
_NULLS = ("firstTimestamp", "lastTimestamp", "eventTime")


def _default(event: Object) -> None:
    for name in ("involvedObject", "source"):
        event.setdefault(name, {})
    for name in _NULLS:
        event.setdefault(name, None)
    for name in ("reportingComponent", "reportingInstance"):
        event.setdefault(name, "")


def _validate(event: Object) -> Iterator[Cause]:
    about, mine = event["involvedObject"].get("namespace", ""), event["metadata"].get("namespace", "")
    # Events about cluster-scoped objects live in `default`.
    if about != mine and not (about == "" and mine == "default"):
        yield field.invalid("involvedObject.namespace", about, "does not match event.namespace")


def _to_core(event: Object) -> Object:
    renamed = {_RENAMED.get(key, key): value for key, value in event.items()}
    renamed["apiVersion"] = scheme.EVENT.api_version
    return renamed


def _from_core(event: Object) -> Object:
    renamed = {_BACK.get(key, key): value for key, value in event.items()}
    renamed["apiVersion"] = scheme.EVENTS_EVENT.api_version
    return renamed


def _default_new(event: Object) -> None:
    for name in ("regarding", "deprecatedSource"):
        event.setdefault(name, {})
    for name in ("eventTime", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"):
        event.setdefault(name, None)


def _validate_new(event: Object) -> Iterator[Cause]:
    if event.get("series") is None and not event.get("eventTime"):
        yield field.required("eventTime")
    if event.get("type") not in ("Normal", "Warning"):
        yield field.invalid("type", event.get("type") or "", f"has invalid value: {event.get('type') or ''}")
    else:
        for name in ("action", "reason", "reportingController", "reportingInstance"):
            if not event.get(name):
                yield field.required(name)


class _Involved(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""
    field_path: str = ""


class _Source(msgspec.Struct, frozen=True, gc=False):
    component: str = ""


class _EventHead(Head, frozen=True, gc=False, rename="camel"):
    involved_object: _Involved = _Involved()
    reason: str = ""
    reporting_component: str = ""
    source: _Source = _Source()
    type: str = ""


_SELECTABLE = {
    "involvedObject.kind": lambda event: event.involved_object.kind,
    "involvedObject.namespace": lambda event: event.involved_object.namespace,
    "involvedObject.name": lambda event: event.involved_object.name,
    "involvedObject.uid": lambda event: event.involved_object.uid,
    "involvedObject.apiVersion": lambda event: event.involved_object.api_version,
    "involvedObject.resourceVersion": lambda event: event.involved_object.resource_version,
    "involvedObject.fieldPath": lambda event: event.involved_object.field_path,
    "reason": lambda event: event.reason,
    "reportingComponent": lambda event: event.reporting_component or event.source.component,
    "source": lambda event: event.source.component or event.reporting_component,
    "type": lambda event: event.type,
}

_ALIASES = {name.replace("involvedObject", "regarding"): name for name in _SELECTABLE}
_ALIASES["reportingController"] = _ALIASES.pop("reportingComponent")

_COLUMNS = (
    Column("Last Seen", description="When this event was last seen."),
    Column("Type", description="Normal or Warning."),
    Column("Reason", description="Why it happened, in one word."),
    Column("Object", description="What it is about."),
    Column("Subobject", description="Which part of the object.", priority=1),
    Column("Source", description="Who reports it.", priority=1),
    Column("Message", description="What happened."),
    Column("First Seen", description="When it was first seen.", priority=1),
    Column("Count", description="How often it was seen.", priority=1),
    Column("Name", description="Name of the Event.", priority=1, format="name"),
)


def _cells(event: Object, now: datetime) -> list[Any]:
    about, source = event.get("involvedObject") or {}, event.get("source") or {}
    series = event.get("series") or {}
    first = event.get("firstTimestamp") or event.get("eventTime")
    last = series.get("lastObservedTime") or event.get("lastTimestamp") or first
    kind = about.get("kind", "").lower()
    return [
        ages.age(last, now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{kind}/{about['name']}" if about.get("name") else kind,
        about.get("fieldPath", ""),
        _source(event, source),
        (event.get("message") or "").strip(),
        ages.age(first, now),
        series.get("count") or event.get("count") or 1,
        event["metadata"]["name"],
    ]


def _source(event: Object, source: Object) -> str:
    component = source.get("component") or event.get("reportingComponent") or ""
    host = source.get("host") or event.get("reportingInstance") or ""
    return f"{component}, {host}" if host else component


CORE = Strategy(
    kind=scheme.EVENT,
    head=_EventHead,
    selectable=_SELECTABLE,
    default=_default,
    validate=_validate,
    name_rule=name_rules.dns_subdomain,
    create_on_update=True,
    columns=_COLUMNS,
    cells=_cells,
)
EVENTS = Strategy(
    kind=scheme.EVENTS_EVENT,
    head=_EventHead,
    selectable=_SELECTABLE,
    field_aliases=_ALIASES,
    default=_default_new,
    validate=_validate_new,
    create_on_update=True,
    columns=_COLUMNS,
    cells=lambda event, now: _cells(_to_core(event), now),
    from_storage=_from_core,
    to_storage=_to_core,
)
STRATEGIES = (EVENTS,)
