"""Which fields Kubernetes' messages have: the table in protobuf_fields.txt, read on first use.

A paragraph is a message, its first line the name and, where it applies, `kind` (an object with apiVersion and kind) or
`list` (JSON shows the list alone). Other lines are fields: number, JSON name (`-`: JSON shows the inner message's fields in
its place), Go's type, and `?` where Go's JSON leaves it out when empty (omitempty; a struct never counts as empty), `??`
where also a zero struct is left out (omitzero). protobuf_fields_added.txt holds what came after the release of the first.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

_FILES = ("protobuf_fields.txt", "protobuf_fields_added.txt")
# Groups of the API by the name of their Go package; "" stands beside "core" for the kinds of metav1 that have no group.
_PACKAGES = {
    "admissionregistration.k8s.io": "admissionregistration",
    "apps": "apps",
    "authentication.k8s.io": "authentication",
    "authorization.k8s.io": "authorization",
    "autoscaling": "autoscaling",
    "batch": "batch",
    "certificates.k8s.io": "certificates",
    "coordination.k8s.io": "coordination",
    "discovery.k8s.io": "discovery",
    "events.k8s.io": "events",
    "flowcontrol.apiserver.k8s.io": "flowcontrol",
    "meta.k8s.io": "meta",
    "networking.k8s.io": "networking",
    "node.k8s.io": "node",
    "policy": "policy",
    "rbac.authorization.k8s.io": "rbac",
    "resource.k8s.io": "resource",
    "scheduling.k8s.io": "scheduling",
    "storage.k8s.io": "storage",
}
# Kinds of metav1 that clients send under the group and version they talk to.
_EVERYWHERE = frozenset(
    {"CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions"}
)


class Field(NamedTuple):
    """A field: `type` as Go writes it; `omitted` is "", "?" or "??" (see above)."""

    number: int
    name: str
    type: str
    omitted: str


class Message(NamedTuple):
    """A message: `role` is "kind", "list" or empty; fields by number, ascending."""

    name: str
    role: str
    fields: tuple[Field, ...]


@functools.cache
def _paragraphs() -> dict[str, list[str]]:
    """The table, a list of lines per message: splitting is all that most messages ever need."""
    found: dict[str, list[str]] = {}
    for file in _FILES:
        text = Path(__file__).with_name(file).read_text()
        for paragraph in text.split("\n\n")[1:]:
            head, *rows = paragraph.splitlines()
            found.setdefault(head.split(" ")[0], [head]).extend(rows)
    return found


@functools.cache
def message(name: str) -> Message:
    """Return a message by the table's name for it: core/v1.PodSpec. Raises KeyError."""
    head, *rows = _paragraphs()[name]
    fields = {}
    for row in rows:
        number, field, type_, omitted = (*row.split(" "), "")[:4]
        fields[int(number)] = Field(int(number), field, type_, omitted)
    role = head.partition(" ")[2]
    return Message(name, role, tuple(fields[number] for number in sorted(fields)))


def kinds() -> list[str]:
    """Return the names of all messages that are kinds."""
    return [name for name, (head, *_) in _paragraphs().items() if head.endswith(" kind")]


@functools.cache
def of_kind(api_version: str, kind: str) -> str:
    """Return the name of a kind's message, empty for one that is not in the table."""
    group, _, version = api_version.rpartition("/")
    package = _PACKAGES.get(group, "") if group else "core"
    candidates = [f"{package}/{version}.{kind}"]
    if not group or kind in _EVERYWHERE:
        candidates.append(f"meta/v1.{kind}")
    return next((name for name in candidates if _paragraphs().get(name, [""])[0].endswith(" kind")), "")
