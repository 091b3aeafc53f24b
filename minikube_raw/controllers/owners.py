"""Who owns what: controller references, and a controller's claim on objects by selector.

An object without a controller that the selector matches is adopted; one of ours that it no longer matches is released
(pkg/controller/controller_ref_manager.go). Both are patches with the object's uid as precondition.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from minikube_raw.api.selectors import Selector
from minikube_raw.api.status import StatusError
from minikube_raw.client.informer import Object
from minikube_raw.client.rest import Client, PatchType, Resource

T = TypeVar("T", bound=Object)


def controller_reference(resource: Resource[Any], owner: Object) -> dict[str, Any]:
    """Return the ownerReferences entry of an object managed by `owner`."""
    return {
        "apiVersion": resource.kind.api_version,
        "kind": resource.kind.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_uid(view: Object) -> Iterable[str]:
    """Index: the uid of the controller."""
    controller = view.metadata.controller
    return (controller.uid,) if controller else ()


def orphan_namespace(view: Object) -> Iterable[str]:
    """Index: the namespace of objects without a controller."""
    return () if view.metadata.controller else (view.metadata.namespace,)


class Claims:
    """The claim of one owner on the objects of a kind."""

    def __init__(self, client: Client, owner_kind: Resource[Any], owner: Object, selector: Selector) -> None:
        self._client = client
        self._owner_kind, self._owner, self._selector = owner_kind, owner, selector
        self._may_adopt: bool | None = None

    async def claim(self, kind: Resource[T], owned: Iterable[T], orphans: Iterable[T]) -> list[T]:
        """Return what is ours afterwards: `owned` less what was released, and what was adopted of `orphans`."""
        ours = []
        deleting = self._owner.metadata.deletion_timestamp is not None
        for view in list(owned):
            if self._selector.matches(view.metadata.labels):
                ours.append(view)
            elif not deleting:
                await self._release(kind, view)
        for view in list(orphans):
            wanted = self._selector.matches(view.metadata.labels) and view.metadata.deletion_timestamp is None
            if wanted and not deleting and await self._is_current() and await self._adopt(kind, view):
                ours.append(view)
        return ours

    async def _is_current(self) -> bool:
        """Ask the server once whether the owner still stands: adopting for one being deleted would never end."""
        if self._may_adopt is None:
            fresh = await self._client.get(self._owner_kind, self._owner.metadata.name, self._owner.metadata.namespace)
            same = fresh.metadata.uid == self._owner.metadata.uid
            self._may_adopt = bool(same and fresh.metadata.deletion_timestamp is None)
        return self._may_adopt

    async def _adopt(self, kind: Resource[T], view: T) -> bool:
        reference = controller_reference(self._owner_kind, self._owner)
        return await self._patch_owners(kind, view, [reference])

    async def _release(self, kind: Resource[T], view: T) -> bool:
        return await self._patch_owners(kind, view, [{"$patch": "delete", "uid": self._owner.metadata.uid}])

    async def _patch_owners(self, kind: Resource[T], view: T, entries: list[dict[str, Any]]) -> bool:
        """Patch; False when the object is gone or another one meanwhile (404, or 422 for a second controller)."""
        metadata = view.metadata
        body = {"metadata": {"uid": metadata.uid, "ownerReferences": entries}}
        try:
            await self._client.patch(kind, metadata.name, body, metadata.namespace, kind=PatchType.STRATEGIC)
        except StatusError as error:
            if error.code in (404, 409, 422):
                return False
            raise
        return True
