"""managedFields of every write that is no apply: who changed a field owns it from then on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from minikube_raw.api import managed_fields
from minikube_raw.api.fieldset import FieldSet
from minikube_raw.api.managed_fields import UPDATE, Manager
from minikube_raw.api.schema import struct
from minikube_raw.api.scheme import Kind
from minikube_raw.api.structured import ShapeError
from minikube_raw.apiserver.resources.strategy import Object

if TYPE_CHECKING:
    from minikube_raw.apiserver.writes import WriteContext

log = logging.getLogger(__name__)

_STATUS: FieldSet = {"f:status": {}}
_SPEC: FieldSet = {"f:spec": {}}
# What a write of the status leaves alone besides the spec (GetResetFields of the kinds' strategies).
_BESIDES: dict[str, FieldSet] = {
    "Deployment": {"f:metadata": {"f:labels": {}}},
    "Pod": {"f:metadata": {"f:deletionTimestamp": {}, "f:ownerReferences": {}}},
}
# Placing a pod is the scheduler's act, but nobody comes to own the pod's node by it.
_UNTRACKED = frozenset({"binding"})


def reset(kind: Kind, subresource: str) -> FieldSet:
    """Return the fields a write there cannot touch and so does not come to own."""
    if subresource == "status":
        return {**_SPEC, **_BESIDES.get(kind.kind, {})}
    return _STATUS if kind.subresource("status") is not None else {}


def record_update(kind: Kind, old: Object | None, new: Object, context: WriteContext, moment: str) -> None:
    """Set the new object's managedFields; `old` is None for a create. A merge by apply has set them itself."""
    subresource = context.info.subresource
    if context.applies or subresource in _UNTRACKED:
        return
    manager = Manager(context.options.field_manager, UPDATE, kind.api_version, subresource)
    shape, without = struct(kind.definition), reset(kind, subresource)
    if subresource == "scale":
        moment = ""  # kube-apiserver loses the time where it carries ownership from the Scale to its workload
    try:
        entries = managed_fields.update(shape, old, new, manager, moment, without)
    except ShapeError as error:
        # Valid, and still no object whose fields have paths: written without asking who owns what, as Kubernetes does.
        log.debug("%s %s: no owners of fields: %s", kind.kind, new["metadata"].get("name"), error)
        return
    new["metadata"].pop("managedFields", None)
    if entries:
        new["metadata"]["managedFields"] = entries
