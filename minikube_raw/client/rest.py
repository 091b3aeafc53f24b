"""Verbs on kinds over a transport: bytes come in as typed views, refusals as StatusError.

A view knows less than the object it was read from, so nothing in here writes a view back: creates and updates take
plain data (dicts) that the caller owns, everything else is a patch or a subresource.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from minikube_raw.api import scheme, status
from minikube_raw.api.meta import ListMeta
from minikube_raw.api.scheme import Kind
from minikube_raw.client.transport import Request, Response, Transport

T = TypeVar("T")
Body = Mapping[str, Any] | msgspec.Struct


class List(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list."""

    metadata: ListMeta = ListMeta()
    items: list[T] = []


class Resource(Generic[T]):
    """A kind and the view its objects are read as."""

    def __init__(self, kind: Kind, view: type[T]) -> None:
        self.kind, self.view = kind, view

    @functools.cached_property
    def decode(self) -> Callable[[bytes | msgspec.Raw], T]:
        """Read one object; compiling a decoder costs more than using it, so each resource keeps its own."""
        return msgspec.json.Decoder(self.view).decode

    @functools.cached_property
    def decode_list(self) -> Callable[[bytes], List[T]]:
        """Read one page of a list."""
        page: Any = List[self.view]  # type: ignore[name-defined]
        decode: Callable[[bytes], List[T]] = msgspec.json.Decoder(page).decode
        return decode


class EventType(enum.Enum):
    """The types of watch events."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


class Frame(msgspec.Struct, frozen=True):
    """A watch event as it comes in; `object` is decoded when its type is known."""

    type: EventType
    object: msgspec.Raw


class PatchType(enum.Enum):
    """Content types of PATCH."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


_frames = msgspec.json.Decoder(Frame)


class Client:
    """The API as one user. Every method raises StatusError when refused and OSError when no server answers."""

    def __init__(self, transport: Transport, *, user_agent: str = "minikube-raw") -> None:
        self.transport = transport
        self._user_agent = user_agent

    async def get(self, resource: Resource[T], name: str, namespace: str = "", *, subresource: str = "") -> T:
        """Read one object."""
        response = await self.request("GET", _path(resource.kind, namespace, name, subresource))
        return resource.decode(response.body)

    async def list(
        self,
        resource: Resource[T],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        limit: int = 0,
        continue_: str = "",
    ) -> List[T]:
        """Read one page of objects (all of them without `limit`)."""
        query = _query(labelSelector=label_selector, fieldSelector=field_selector, resourceVersion=resource_version)
        query |= _query(limit=str(limit or ""), **{"continue": continue_})
        response = await self.request("GET", _path(resource.kind, namespace), query=query)
        return resource.decode_list(response.body)

    async def watch(
        self,
        resource: Resource[T],
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout: int = 0,
    ) -> AsyncIterator[tuple[EventType, T]]:
        """Yield changes after `resource_version`, bookmarks too, until the server ends it (after `timeout` s)."""
        query = _query(labelSelector=label_selector, fieldSelector=field_selector, resourceVersion=resource_version)
        query |= _query(watch="true", allowWatchBookmarks="true", timeoutSeconds=str(timeout or ""))
        request = Request("GET", _path(resource.kind, namespace), query, user_agent=self._user_agent)
        async for data in self.transport.watch(request):
            frame = _frames.decode(data)
            if frame.type is EventType.ERROR:
                raise status.from_json(bytes(frame.object))
            yield frame.type, resource.decode(frame.object)

    async def create(
        self, resource: Resource[T], body: Body, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> T:
        """Create an object; with `name` and `subresource` POST to a subresource that answers with the kind itself."""
        path = _path(resource.kind, namespace, name, subresource)
        response = await self.request("POST", path, body=msgspec.json.encode(body))
        return resource.decode(response.body)

    async def bind(self, pod: Resource[T], name: str, namespace: str, uid: str, node: str) -> None:
        """Say on which node a pod runs (the binding subresource). Raises StatusError 409 when it has a node already."""
        metadata = {"name": name, "namespace": namespace, "uid": uid}
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        await self.request("POST", _path(pod.kind, namespace, name, "binding"), body=msgspec.json.encode(binding))

    async def update(
        self, resource: Resource[T], name: str, body: Body, namespace: str = "", *, subresource: str = ""
    ) -> T:
        """Replace an object the caller knows wholly."""
        path = _path(resource.kind, namespace, name, subresource)
        response = await self.request("PUT", path, body=msgspec.json.encode(body))
        return resource.decode(response.body)

    async def patch(
        self,
        resource: Resource[T],
        name: str,
        body: Body | Sequence[Any],
        namespace: str = "",
        *,
        kind: PatchType = PatchType.MERGE,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> T:
        """Change part of an object. metadata.uid and metadata.resourceVersion in `body` are preconditions (409)."""
        path = _path(resource.kind, namespace, name, subresource)
        query = _query(fieldManager=field_manager, force="true" if force else "")
        response = await self.request(
            "PATCH", path, query=query, body=msgspec.json.encode(body), content_type=kind.value
        )
        return resource.decode(response.body)

    async def delete(
        self,
        resource: Resource[T],
        name: str,
        namespace: str = "",
        *,
        grace_period: int | None = None,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
    ) -> None:
        """Ask for deletion; `propagation` is Background, Foreground or Orphan.

        `uid` and `resource_version` are preconditions (409). `grace_period` is seconds; None means the object's own.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period is not None:
            options["gracePeriodSeconds"] = grace_period
        if propagation:
            options["propagationPolicy"] = propagation
        if preconditions := {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v}:
            options["preconditions"] = preconditions
        await self.request("DELETE", _path(resource.kind, namespace, name), body=msgspec.json.encode(options))

    async def delete_collection(self, resource: Resource[T], namespace: str, *, label_selector: str = "") -> None:
        """Ask for deletion of all objects of a kind in a namespace."""
        query = _query(labelSelector=label_selector)
        await self.request("DELETE", _path(resource.kind, namespace), query=query)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, tuple[str, ...]] | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
    ) -> Response:
        """Send one request; answers of 300 and above become StatusError."""
        request = Request(method, path, query or {}, body, content_type, user_agent=self._user_agent)
        response = await self.transport.request(request)
        if response.code >= 300:
            raise status.from_json(response.body, response.code)
        return response

    async def close(self) -> None:
        """Let go of the transport's connections."""
        await self.transport.close()


def _path(kind: Kind, namespace: str = "", name: str = "", subresource: str = "") -> str:
    return scheme.path(kind, namespace, name, subresource)


def _query(**values: str) -> dict[str, tuple[str, ...]]:
    return {name: (value,) for name, value in values.items() if value}
