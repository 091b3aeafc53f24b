"""What the generic registry asks of a kind: a row of named functions beside the names in `api.scheme`.

The words are Kubernetes' (registry/rest strategies). Functions that change an object do so in place on a private copy;
validations yield causes. `docs/limits.md` is made from this table, so a kind says here what it is, not in the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from minikube_raw.api.name_rules import dns_subdomain
from minikube_raw.api.scheme import Kind
from minikube_raw.api.status import Cause

Object = dict[str, Any]


class Owner(msgspec.Struct, frozen=True, gc=False):
    """The part of an ownerReference that is indexed."""

    uid: str = ""


class Metadata(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The part of metadata that selectors and indexes look at."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    owner_references: list[Owner] = []
    deletion_timestamp: str = ""


class Head(msgspec.Struct, frozen=True, gc=False):
    """The part of an object that is decoded once when it enters the cache; kinds with selectable fields extend it."""

    metadata: Metadata


class Column(NamedTuple):
    """A Table column. A priority above 0 is shown with `-o wide` only."""

    name: str
    type: str = "string"
    description: str = ""
    priority: int = 0
    format: str = ""


NAME_COLUMN = Column("Name", format="name", description="Name must be unique within a namespace.")
AGE_COLUMN = Column("Age", description="How long ago the object was created.")
CREATED_AT_COLUMN = Column("Created At", "date", "When the object was created.")


def unchanged(obj: Object) -> None:
    """Change nothing."""


def unchanged_from(new: Object, old: Object) -> None:
    """Change nothing."""


def no_causes(obj: Object) -> Iterator[Cause]:
    """Find nothing wrong."""
    return iter(())


def no_update_causes(new: Object, old: Object) -> Iterator[Cause]:
    """Find nothing wrong."""
    return iter(())


def keep_status(new: Object, old: Object) -> None:
    """Take the old status, since an update of the main resource does not change it."""
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)


def keep_all_but_status(new: Object, old: Object) -> None:
    """Take everything but status from the old object: what an update of the status subresource does."""
    for key in [key for key in new if key not in ("status", "metadata")]:
        del new[key]
    new.update({key: value for key, value in old.items() if key not in ("status", "metadata")})


def bump_generation(new: Object, old: Object) -> None:
    """Count a generation when anything but metadata and status changed (rest.strategy's generation rule)."""
    held = old["metadata"].get("generation")
    changed = _wish(new) != _wish(old)
    if held is not None or changed:
        new["metadata"]["generation"] = (held or 0) + changed


def _wish(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def name_and_creation(obj: Object, now: datetime) -> list[Any]:
    """Cells of a kind without columns of its own."""
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp")]


class Part(NamedTuple):
    """A subresource through which a part of an object changes: take the part, keep the rest; judge the change."""

    prepare: Callable[[Object, Object], None]
    validate: Callable[[Object, Object], Iterator[Cause]]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A kind's rules. Defaults fit a kind without status, generation or rules of its own."""

    kind: Kind
    head: type[Head] = Head
    # Field selectors beyond metadata.name and metadata.namespace: label → value of a head.
    selectable: Mapping[str, Callable[[Any], str]] = field(default_factory=dict)
    # What this version calls a selectable field → what the cache calls it, where they differ.
    field_aliases: Mapping[str, str] = field(default_factory=dict)
    # Applied to every body before it is compared or merged; must be idempotent.
    default: Callable[[Object], None] = unchanged
    # Mutating admission, on create only; not part of what managedFields records for the client.
    admit: Callable[[Object], None] = unchanged
    prepare_for_create: Callable[[Object], None] = unchanged
    prepare_for_update: Callable[[Object, Object], None] = unchanged_from
    prepare_status: Callable[[Object, Object], None] = keep_all_but_status
    validate: Callable[[Object], Iterator[Cause]] = no_causes
    validate_create: Callable[[Object], Iterator[Cause]] = no_causes
    validate_update: Callable[[Object, Object], Iterator[Cause]] = no_update_causes
    validate_status: Callable[[Object, Object], Iterator[Cause]] = no_update_causes
    # Subresources of the kind's own, beside status.
    parts: Mapping[str, Part] = field(default_factory=dict)
    warnings: Callable[[Object], Iterator[str]] = lambda obj: iter(())
    name_rule: Callable[[str], Sequence[str]] = dns_subdomain
    # PUT of a missing object creates it.
    create_on_update: bool = False
    # Seconds a deletion leaves to the object's owner; 0 removes at once. Gets the object and the asked grace (None: not asked).
    grace: Callable[[Object, int | None], int] = lambda obj, asked: 0
    columns: tuple[Column, ...] = (NAME_COLUMN, CREATED_AT_COLUMN)
    cells: Callable[[Object, datetime], list[Any]] = name_and_creation
    row_conditions: Callable[[Object], list[dict[str, str]]] | None = None
    # Conversion between the stored version and this one, for kinds served in several.
    from_storage: Callable[[Object], Object] | None = None
    to_storage: Callable[[Object], Object] | None = None
    # A deletion that only marks (namespaces): returns whether the object may be removed now.
    may_remove: Callable[[Object], bool] = lambda obj: True
    before_delete: Callable[[Object], None] = unchanged
    # A renewal that need not be on disk when it is acknowledged.
    is_lazy: Callable[[Object], bool] = lambda obj: False
    # Whether a name or namespace may be deleted at all: a 403's text, or "".
    delete_refusal: Callable[[str], str] = lambda name: ""
