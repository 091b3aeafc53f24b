"""metadata.managedFields: who owns which fields, kept by every write (apimachinery, util/managedfields).

An update owns what it changed and takes it from others; what it removes nobody owns any more. Entries are immutable here;
`apply` uses the same steps with other rules. Times change only when a write took something.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from minikube_raw.api import fieldset, structured, typed
from minikube_raw.api.fieldset import FieldSet
from minikube_raw.api.schema import Struct

Object = dict[str, Any]

APPLY, UPDATE = "Apply", "Update"
MAX_UPDATE_MANAGERS = 10
_ANCIENT = "ancient-changes"
_SERVERS_METADATA = (
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
)
# Nobody owns what identifies the object or what the server alone decides.
_NEVER_OWNED: FieldSet = {
    "f:apiVersion": {},
    "f:kind": {},
    "f:metadata": {
        ".": {},
        **{f"f:{name}": {} for name in _SERVERS_METADATA},
    },
}


class Manager(NamedTuple):
    """Who writes and how. Two writes by one manager through different subresources own separately."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    def __str__(self) -> str:
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return text if self.operation == APPLY else f"{text} using {self.api_version}"


class Owned(NamedTuple):
    """What a manager owns and when it last took something; `time` is empty if it never did."""

    fields: FieldSet
    time: str = ""


Managers = Mapping[Manager, Owned]


def decode(entries: Any) -> dict[Manager, Owned] | None:
    """Read metadata.managedFields; None for what is none, which callers treat as not given."""
    managers: dict[Manager, Owned] = {}
    for entry in entries or ():
        if not isinstance(entry, dict) or entry.get("fieldsType", "FieldsV1") != "FieldsV1":
            return None
        fields = entry.get("fieldsV1") or {}
        if entry.get("operation") not in (APPLY, UPDATE) or not isinstance(fields, dict):
            return None
        manager = Manager(
            entry.get("manager", ""), entry["operation"], entry.get("apiVersion", ""), entry.get("subresource", "")
        )
        managers[manager] = Owned(fields, entry.get("time") or "")
    return managers


def encode(managers: Managers) -> list[Object]:
    """Return metadata.managedFields: appliers first, then by time and name."""

    def order(item: tuple[Manager, Owned]) -> tuple[str, ...]:
        manager, owned = item
        return manager.operation, owned.time, manager.name, manager.api_version, manager.subresource

    return [_entry(manager, owned) for manager, owned in sorted(managers.items(), key=order)]


def _entry(manager: Manager, owned: Owned) -> Object:
    entry = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": manager.api_version,
        "time": owned.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fieldset.ordered(owned.fields),
        "subresource": manager.subresource,
    }
    return {key: value for key, value in entry.items() if value != ""}


def given(live: Object | None, new: Object, *, subresource: bool = False) -> dict[Manager, Owned]:
    """Return the managers a write starts from: the new object's if it carries some, else the live one's.

    `managedFields: []` and `[{}]` forget all; a subresource cannot change them.
    """
    stored = (decode(live["metadata"].get("managedFields")) if live else None) or {}
    entries = new["metadata"].get("managedFields")
    if subresource:
        return stored
    if entries in ([], [{}]):
        return {}
    return decode(entries) or stored


def update(
    shape: Struct, live: Object | None, new: Object, manager: Manager, time: str, reset: FieldSet | None = None
) -> list[Object]:
    """Return the managedFields of an update from `live` (None: a create) to `new`, both as typed.read leaves them.

    `reset` names fields this endpoint does not write (status at the main resource), which nobody comes to own by it.
    """
    managers = given(live, new, subresource=bool(manager.subresource))
    if live is not None and not managers:
        return []  # Nobody has been tracked so far, and an update is no reason to begin.
    plain_new = _without_managed_fields(new)
    before = typed.empty(shape) if live is None else _without_managed_fields(live)
    difference = structured.compare(shape, before, plain_new)
    reset = reset or {}
    changed, removed = fieldset.without(difference.changed, reset), fieldset.without(difference.removed, reset)
    if not changed and not removed:
        return encode(managers)
    managers = taken_from_others(managers, manager.api_version, changed, removed)
    taken = fieldset.difference(changed, _NEVER_OWNED)
    if taken:
        had = managers[manager].fields if manager in managers else {}
        managers[manager] = Owned(fieldset.union(had, taken), time)
    return encode(capped(managers))


def _without_managed_fields(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


def taken_from_others(
    managers: Managers, api_version: str, changed: FieldSet, removed: FieldSet, but: Manager | None = None
) -> dict[Manager, Owned]:
    """Return the managers without what a write changed or removed; `but` keeps its own, who owns nothing is gone.

    Entries written through another version of the type name other fields; they stay as they are.
    """
    kept: dict[Manager, Owned] = {}
    for manager, owned in managers.items():
        fields = owned.fields
        if manager != but and manager.api_version == api_version:
            fields = fieldset.difference(fieldset.difference(fields, changed), removed)
        if fields:
            kept[manager] = Owned(fields, owned.time)
    return kept


def stripped(fields: FieldSet) -> FieldSet:
    """Return a set without what nobody can own."""
    return fieldset.difference(fields, _NEVER_OWNED)


def capped(managers: dict[Manager, Owned]) -> dict[Manager, Owned]:
    """Merge the oldest updates of each version into one entry while there are more than ten."""
    updates = sorted((m for m in managers if m.operation == UPDATE), key=lambda m: (managers[m].time, m))
    excess = len(updates) - MAX_UPDATE_MANAGERS
    if excess <= 0:
        return managers
    managers = dict(managers)
    first: dict[str, Manager] = {}
    for manager in updates:
        if excess <= 0:
            break
        oldest = first.setdefault(manager.api_version, manager)
        if oldest == manager:
            continue
        bucket = Manager(_ANCIENT, UPDATE, manager.api_version)
        if bucket not in managers:
            managers[bucket] = managers.pop(oldest)
        owned = managers.pop(manager)
        managers[bucket] = Owned(fieldset.union(owned.fields, managers[bucket].fields), owned.time)
        excess -= 1
    return managers
