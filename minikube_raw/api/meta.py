"""metav1 as read-only views: object metadata, owner references, conditions, selectors, list metadata.

A view (msgspec.Struct, gc=False) holds what our own loops read of an object, at a fortieth of a dict's memory. It knows
less than the object, so loops write by patch or subresource, never by PUT of a view. Absent and default are the same.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import msgspec

IntOrString: TypeAlias = int | str


class View(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Base of all views: snake_case here, camelCase on the wire; unknown fields are skipped, defaults not written."""


class OwnerReference(View, frozen=True, gc=False):
    """metav1.OwnerReference: who this object goes with; at most one owner is the controller."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(View, frozen=True, gc=False):
    """metav1.ObjectMeta without managedFields. Times are RFC 3339 text, see `times`."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages this object."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class TypeMeta(View, frozen=True, gc=False):
    """What every object says of itself: enough to decide which view reads the rest."""

    api_version: str = ""
    kind: str = ""


class PartialObject(View, frozen=True, gc=False):
    """metav1.PartialObjectMetadata: any object reduced to its names."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()


class ListMeta(View, frozen=True, gc=False):
    """metav1.ListMeta: `resource_version` is the snapshot's; `continue_` asks for its next page."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


class Condition(View, frozen=True, gc=False):
    """A condition of any kind; `status` is True, False or Unknown. Times that a kind does not have stay None."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str | None = None
    last_probe_time: str | None = None
    last_heartbeat_time: str | None = None
    last_update_time: str | None = None


def condition(conditions: tuple[Condition, ...], kind: str) -> Condition | None:
    """Find the condition of that type."""
    return next((entry for entry in conditions if entry.type == kind), None)


class LabelSelectorRequirement(View, frozen=True, gc=False):
    """One expression of a label selector; `operator` is In, NotIn, Exists or DoesNotExist."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class LabelSelector(View, frozen=True, gc=False):
    """metav1.LabelSelector: all of it must hold. Empty selects everything, None (where allowed) nothing."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class WatchEvent(msgspec.Struct, frozen=True, gc=False):
    """metav1.WatchEvent: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR, the object left as bytes."""

    type: str
    object: msgspec.Raw


ViewType = TypeVar("ViewType", bound=msgspec.Struct)


def decode(body: bytes | msgspec.Raw, view: type[ViewType]) -> ViewType:
    """Read an object as the server sends it (no nulls). Raises msgspec.ValidationError for another shape."""
    return msgspec.json.decode(body, type=view)


def to_dict(view: msgspec.Struct) -> dict[str, Any]:
    """Return a view as plain data with the wire's names, for patches and new objects."""
    plain: dict[str, Any] = msgspec.to_builtins(view)
    return plain
