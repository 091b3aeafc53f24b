"""Who depends on whom, over all kinds, by uid: what the garbage collector looks at. Pure bookkeeping.

An owner that nobody has seen stands in the graph too (`present` False), since its dependents hang on it all the same.
"""

from __future__ import annotations

from typing import Any

from minikube_raw.api.meta import ObjectMeta, OwnerReference
from minikube_raw.client.rest import Resource

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


class Vertex:
    """An object: its kind, metadata and the uids of its dependents."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.resource: Resource[Any] | None = None
        self.metadata = ObjectMeta()
        self.dependents: set[str] = set()

    @property
    def present(self) -> bool:
        """Whether the object has been seen and not been deleted since."""
        return self.resource is not None

    @property
    def being_deleted(self) -> bool:
        """Whether somebody asked for its deletion."""
        return self.metadata.deletion_timestamp is not None

    @property
    def waits_for_dependents(self) -> bool:
        """Whether it is deleted in the foreground: after its dependents."""
        return self.being_deleted and FOREGROUND in self.metadata.finalizers

    @property
    def orphans_dependents(self) -> bool:
        """Whether it is deleted and leaves its dependents behind."""
        return self.being_deleted and ORPHAN in self.metadata.finalizers

    def owner(self, uid: str) -> OwnerReference | None:
        """Return the reference to an owner."""
        return next((owner for owner in self.metadata.owner_references if owner.uid == uid), None)


class OwnerGraph:
    """Vertices by uid, kept up to date by `put` and `remove`."""

    def __init__(self) -> None:
        self._vertices: dict[str, Vertex] = {}

    def get(self, uid: str) -> Vertex | None:
        """Return the vertex of an object or of an owner somebody names."""
        return self._vertices.get(uid)

    def put(self, resource: Resource[Any], metadata: ObjectMeta) -> Vertex:
        """Take over an object's metadata."""
        vertex = self._vertex(metadata.uid)
        before = {owner.uid for owner in vertex.metadata.owner_references}
        after = {owner.uid for owner in metadata.owner_references}
        vertex.resource, vertex.metadata = resource, metadata
        for uid in after - before:
            self._vertex(uid).dependents.add(metadata.uid)
        for uid in before - after:
            self._detach(uid, metadata.uid)
        return vertex

    def remove(self, uid: str) -> set[str]:
        """The object is gone; return the uids of those that depended on it."""
        vertex = self._vertices.get(uid)
        if vertex is None:
            return set()
        for owner in vertex.metadata.owner_references:
            self._detach(owner.uid, uid)
        vertex.resource, vertex.metadata = None, ObjectMeta()
        if not vertex.dependents:
            self._vertices.pop(uid, None)
        return set(vertex.dependents)

    def dependents(self, vertex: Vertex) -> list[Vertex]:
        """Return the objects that name this one as an owner."""
        return [self._vertices[uid] for uid in vertex.dependents if uid in self._vertices]

    def blocking(self, vertex: Vertex) -> list[Vertex]:
        """Return the dependents that a foreground deletion must wait for."""
        return [each for each in self.dependents(vertex) if _blocks(each, vertex.uid)]

    def _vertex(self, uid: str) -> Vertex:
        return self._vertices.setdefault(uid, Vertex(uid))

    def _detach(self, owner: str, dependent: str) -> None:
        vertex = self._vertices.get(owner)
        if vertex is not None:
            vertex.dependents.discard(dependent)
            if not vertex.dependents and not vertex.present:
                del self._vertices[owner]


def _blocks(dependent: Vertex, owner: str) -> bool:
    reference = dependent.owner(owner)
    return reference is not None and reference.block_owner_deletion
