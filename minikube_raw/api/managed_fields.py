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
    """Who writes and how. Two writes by one manager through different subresources own separately.

    `api_version` tells updates through two versions apart; an applier is the same one in every version, so it is empty.
    """

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
    """What a manager owns, in fields of `api_version`, and when it last took something; `time` is empty if it never did."""

    fields: FieldSet
    api_version: str
    time: str = ""


Managers = Mapping[Manager, Owned]


def decode(entries: Any, *, trusted: bool = True) -> dict[Manager, Owned] | None:
    """Read metadata.managedFields; None for what is none, which callers treat as not given.

    What the server itself wrote is `trusted`; what a client sends may have any shape and spelling.
    """
    managers: dict[Manager, Owned] = {}
    for entry in entries or ():
        version, operation = entry.get("apiVersion", ""), entry.get("operation")
        if not version or operation not in (APPLY, UPDATE) or entry.get("fieldsType") != "FieldsV1":
            return None
        fields = entry.get("fieldsV1") or {}
        if not trusted:
            try:
                fields = fieldset.parse(fields)
            except ValueError:
                return None
        key_version = version if operation == UPDATE else ""
        manager = Manager(entry.get("manager", ""), operation, key_version, entry.get("subresource", ""))
        managers[manager] = Owned(fields, version, entry.get("time") or "")
    return managers


def encode(managers: Managers) -> list[Object]:
    """Return metadata.managedFields: appliers first, then by time and name."""

    def order(item: tuple[Manager, Owned]) -> tuple[str, ...]:
        manager, owned = item
        return manager.operation, owned.time, manager.name, owned.api_version, manager.subresource

    return [_entry(manager, owned) for manager, owned in sorted(managers.items(), key=order)]


def _entry(manager: Manager, owned: Owned) -> Object:
    entry = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": owned.api_version,
        "time": owned.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": owned.fields,
        "subresource": manager.subresource,
    }
    return {key: value for key, value in entry.items() if value != ""}


def same_owners(left: Any, right: Any) -> bool:
    """Whether two managedFields say the same, whenever that was written."""
    if left == right:
        return True
    before, after = decode(left), decode(right)
    if before is None or after is None or before.keys() != after.keys():
        return False
    return all(owned._replace(time="") == after[manager]._replace(time="") for manager, owned in before.items())


def given(live: Object | None, new: Object, *, subresource: bool = False) -> dict[Manager, Owned]:
    """Return the managers a write starts from: the new object's if it carries some, else the live one's.

    `managedFields: []` and `[{}]` forget all; a subresource cannot change them.
    """
    held = live["metadata"].get("managedFields") if live else None
    entries = new["metadata"].get("managedFields")
    if entries in ([], [{}]) and not subresource:
        return {}
    if subresource or entries is None or entries == held:
        return decode(held) or {}
    return decode(entries, trusted=False) or decode(held) or {}


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
    managers = taken_from_all(managers, changed, removed)
    taken = stripped(changed)
    if taken:
        had = managers[manager].fields if manager in managers else {}
        managers[manager] = Owned(fieldset.ordered(fieldset.union(had, taken)), manager.api_version, time)
    return encode(capped(managers))


def _without_managed_fields(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


def taken_from_all(managers: Managers, changed: FieldSet, removed: FieldSet) -> dict[Manager, Owned]:
    """Return the managers without what a write changed or removed; who owns nothing any more is gone.

    Entries of another version are taken at their word: fields have the same paths in most versions of a type.
    """
    kept: dict[Manager, Owned] = {}
    for manager, owned in managers.items():
        fields = fieldset.difference(fieldset.difference(owned.fields, changed), removed)
        if fields:
            kept[manager] = owned._replace(fields=fields)
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
        bucket = Manager(_ANCIENT, UPDATE, manager.api_version)
        if manager in (oldest, bucket):
            continue
        if bucket not in managers:
            managers[bucket] = managers.pop(oldest)
        owned = managers.pop(manager)
        fields = fieldset.ordered(fieldset.union(owned.fields, managers[bucket].fields))
        managers[bucket] = owned._replace(fields=fields)
        excess -= 1
    return managers
