"""Server-side apply: an object as one of its owners wants it, merged into the live one without treading on the others.

As structured-merge-diff does it (merge.Updater.Apply): merge, drop what this owner applied before and no longer mentions
unless somebody else owns it too, then look whose fields changed. Defaults and validation come after, in the API server.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import msgspec

from minikube_raw.api import fieldset, managed_fields, status, structured, typed, yaml_text
from minikube_raw.api.fieldset import FieldSet
from minikube_raw.api.managed_fields import APPLY, UPDATE, Manager, Managers, Owned
from minikube_raw.api.schema import Struct
from minikube_raw.api.scheme import Kind

Object = dict[str, Any]
_BEFORE = "before-first-apply"
_KUBECTL = "kubectl"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Applied(NamedTuple):
    """The merged object, clean but not defaulted, with its new managedFields; `changed` is False for a no-op."""

    obj: Object
    changed: bool


def parse(body: bytes, kind: Kind, *, strict: bool = False) -> tuple[Object, list[str]]:
    """Read a configuration in YAML or JSON; also returns repeated keys. Raises StatusError 400."""
    try:
        config, repeated = yaml_text.decode(body)
        if config is not None and not isinstance(config, dict):
            found = typed.kind_of(config)
            prefix = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal"
            raise yaml_text.YAMLError(f"{prefix} {found} into Go value of type map[string]interface {{}}")
    except yaml_text.YAMLError as error:
        text = str(error)
        where = "" if text.startswith("error unmarshaling") else "error converting YAML to JSON: "
        raise status.bad_request(f"error decoding YAML: {where}{text}") from None
    if repeated and strict:
        lines = "".join(f"\n  {line}" for line in repeated)
        text = f"error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:{lines}"
        raise status.bad_request(text)
    config = config or {}
    version, name = str(config.get("apiVersion") or ""), str(config.get("kind") or "")
    if (version, name) != (kind.api_version, kind.kind):
        # A bare version belongs to the core group, whose name is empty: "/v1, Kind=Pod".
        shown = version if "/" in version else f"/{version}"
        raise status.bad_request(f"invalid object type: {shown}, Kind={name}")
    metadata = config.get("metadata")
    if isinstance(metadata, dict) and metadata.get("managedFields"):
        raise status.bad_request("metadata.managedFields must be nil")
    return config, repeated


def apply(
    shape: Struct,
    live: Object | None,
    config: Object,
    manager: Manager,
    time: str,
    *,
    force: bool = False,
    reset: FieldSet | None = None,
) -> Applied:
    """Merge a configuration into the live object (None: there is none, it is created).

    Raises StatusError 409 with a cause for each field another manager owns, and 500 for what does not fit the type.
    """
    _judge(shape, config)
    version, manager = manager.api_version, manager._replace(api_version="")
    reset = reset or {}
    others = _managers(shape, live, Manager(_BEFORE, UPDATE, version, manager.subresource), time, reset)
    last = others.pop(manager, Owned({}, version))
    before = typed.empty(shape) if live is None else _plain(live)
    wanted = fieldset.without(structured.fields_of(shape, config), reset)
    merged = structured.merge(shape, before, config)
    merged = _pruned(shape, merged, last.fields, [wanted, *(owned.fields for owned in others.values())])
    changed, removed = structured.compare(shape, before, merged)
    changed, removed = fieldset.without(changed, reset), fieldset.without(removed, reset)
    if not force:
        allowed = _applied_by_client(shape, before) if manager.name == _KUBECTL else {}
        _refuse_conflicts(others, fieldset.difference(changed, allowed))
    owners = managed_fields.taken_from_all(others, changed, removed)
    is_changed = merged != before
    if own := fieldset.ordered(managed_fields.stripped(wanted)):
        owners[manager] = Owned(own, version, time if is_changed else last.time)
    if manager.name == _KUBECTL and (merged["metadata"].get("annotations") or {}).get(_LAST_APPLIED):
        merged = _with_last_applied(merged, config)
    return Applied(_finished(shape, merged, managed_fields.encode(owners)), is_changed)


def _plain(obj: Object) -> Object:
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}


def _judge(shape: Struct, config: Object) -> None:
    wrong = list(structured.judge(shape, config))
    if not wrong:
        return
    text = wrong[0] if len(wrong) == 1 else "errors:" + "".join(f"\n  {line}" for line in wrong)
    metadata = config.get("metadata") if isinstance(config.get("metadata"), dict) else {}
    name = f"{(metadata or {}).get('namespace', '')}/{(metadata or {}).get('name', '')}"
    version = config["apiVersion"]
    group_version = version if "/" in version else f"/{version}"
    message = f"failed to create typed patch object ({name}; {group_version}, Kind={config['kind']}): {text}"
    raise status.StatusError(500, "", message)


def _managers(shape: Struct, live: Object | None, first: Manager, time: str, reset: FieldSet) -> dict[Manager, Owned]:
    """Return the live object's managers; if nobody was tracked, everything belongs to `first`."""
    if live is None:
        return {}
    managers = managed_fields.given(live, live)
    if managers:
        return managers
    difference = structured.compare(shape, typed.empty(shape), _plain(live))
    owned = fieldset.ordered(managed_fields.stripped(fieldset.without(difference.changed, reset)))
    return {first: Owned(owned, first.api_version, time)} if owned else {}


def _pruned(shape: Struct, merged: Object, last: FieldSet, owned: list[FieldSet]) -> Object:
    """Drop what the manager applied before (`last`) and nobody owns now."""
    if not last:
        return merged
    pruned = structured.remove(shape, merged, structured.with_named_members(shape, last)) or {}
    pruned = _add_back(shape, merged, pruned, functools.reduce(fieldset.union, owned))
    return _keep_undecided(shape, merged, pruned, last)


def _named(shape: Struct, obj: Object) -> FieldSet:
    return structured.with_named_members(shape, structured.fields_of(shape, obj))


def _add_back(shape: Struct, merged: Object, pruned: Object, owned: FieldSet) -> Object:
    """Undo the removal of what somebody owns, inside of what nobody does."""
    keep = fieldset.union(_named(shape, pruned), structured.with_named_members(shape, owned))
    result: Object = structured.remove(shape, merged, fieldset.difference(_named(shape, merged), keep))
    return result


def _keep_undecided(shape: Struct, merged: Object, pruned: Object, last: FieldSet) -> Object:
    """Undo the removal of what this manager never applied either: it went only because its parent did."""
    gone = fieldset.difference(_named(shape, merged), _named(shape, pruned))
    mine = structured.with_named_members(shape, last)
    result: Object = structured.remove(shape, merged, fieldset.intersection(gone, mine))
    return result


def _applied_by_client(shape: Struct, live: Object) -> FieldSet:
    """Return what kubectl applied without the server's help: `kubectl apply --server-side` may take it over."""
    try:
        last = msgspec.json.decode((live["metadata"].get("annotations") or {}).get(_LAST_APPLIED, ""))
    except msgspec.DecodeError:
        return {}
    if not isinstance(last, dict) or last.get("apiVersion") != live["apiVersion"] or any(structured.judge(shape, last)):
        return {}
    # What somebody has changed since is not kubectl's any more.
    changed, removed = structured.compare(shape, last, live)
    return fieldset.difference(fieldset.difference(structured.fields_of(shape, last), changed), removed)


def _with_last_applied(merged: Object, config: Object) -> Object:
    """Keep kubectl's annotation in step, so that `kubectl apply` without the server's help still works afterwards."""
    annotations = {
        key: value
        for key, value in ((config.get("metadata") or {}).get("annotations") or {}).items()
        if key != _LAST_APPLIED
    }
    metadata = {key: value for key, value in (config.get("metadata") or {}).items() if key != "annotations"}
    applied = {**config, "metadata": {**metadata, **({"annotations": annotations} if annotations else {})}}
    text = msgspec.json.encode(applied, order="sorted").decode() + "\n"
    held = merged["metadata"]
    return {**merged, "metadata": {**held, "annotations": {**held["annotations"], _LAST_APPLIED: text}}}


def _refuse_conflicts(others: Managers, changed: FieldSet) -> None:
    causes, lines = [], []
    for owner in sorted(others):
        paths = list(fieldset.paths(fieldset.intersection(others[owner].fields, changed)))
        causes += [status.Cause("FieldManagerConflict", f"conflict with {owner}", path) for path in paths]
        if paths:
            lines.append("\n".join([f"conflicts with {owner}:", *(f"- {path}" for path in paths)]))
    if len(causes) == 1:
        raise status.apply_conflict(causes, f"Apply failed with 1 conflict: {causes[0].message}: {causes[0].field}")
    if causes:
        raise status.apply_conflict(causes, f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines))


def _finished(shape: Struct, merged: Object, entries: list[Object]) -> Object:
    try:
        obj = typed.read(shape, merged)
    except typed.DecodeError as error:
        # Only quantities, times and number ranges are left to be wrong after the judgement above.
        raise status.StatusError(500, "", f"failed to convert new object to proper version: {error}") from None
    obj["metadata"].pop("managedFields", None)
    if entries:
        obj["metadata"]["managedFields"] = entries
    return obj


__all__ = ["APPLY", "UPDATE", "Applied", "apply", "parse"]
