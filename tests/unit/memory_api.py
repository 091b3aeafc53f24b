"""An API server that fits on a screen: list, watch, get, create, patch, delete and the subresources our loops use.

It validates nothing and defaults nothing; it exists so that the clients' own behaviour (expiry, disconnects, conflicts)
can be provoked. What the real server does with a request is tested against the real server.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from minikube_raw.api import naming, scheme, status
from minikube_raw.api.scheme import Kind
from minikube_raw.client.transport import Request, Response

Object = dict[str, Any]


class MemoryAPI:
    """Implements client.transport.Transport. `log` has every (method, path); `fail` may raise for a request."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Object]] = {}
        self.events: list[tuple[int, str, str, Object]] = []
        self.revision = 1
        self.compacted = 0
        self.log: list[tuple[str, str]] = []
        self.fail: Callable[[Request], None] = lambda request: None
        self._changed = asyncio.Event()
        self._cut = 0

    # What tests say directly.

    def put(self, kind: Kind, body: Object) -> Object:
        """Create or replace an object as it is."""
        metadata = body.setdefault("metadata", {})
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        key = _key(metadata.get("namespace", ""), metadata["name"])
        known = key in self.objects.setdefault(kind.resource, {})
        return self._publish(kind, "MODIFIED" if known else "ADDED", key, body)

    def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        return self.objects.get(kind.resource, {})[_key(namespace, name)]

    def all(self, kind: Kind) -> list[Object]:
        return list(self.objects.get(kind.resource, {}).values())

    def remove(self, kind: Kind, name: str, namespace: str = "") -> None:
        key = _key(namespace, name)
        self._publish(kind, "DELETED", key, self.objects[kind.resource][key])

    def compact(self) -> None:
        """Forget history: a watch from before gets 410."""
        self.compacted = self.revision
        self.events.clear()

    def disconnect(self) -> None:
        """Break every watch."""
        self._cut += 1
        self._wake()

    def writes(self) -> list[tuple[str, str]]:
        return [entry for entry in self.log if entry[0] != "GET" and "/events" not in entry[1]]

    # The transport.

    async def request(self, request: Request) -> Response:
        await asyncio.sleep(0)
        self.log.append((request.method, request.path))
        try:
            self.fail(request)
            return Response(200, json.dumps(self._answer(request)).encode())
        except status.StatusError as error:
            return Response(error.code, error.to_json())

    async def watch(self, request: Request) -> AsyncIterator[bytes]:
        self.log.append(("WATCH", request.path))
        self.fail(request)
        kind, namespace, _, _ = _parse(request.path)
        since, cut = int(request.query["resourceVersion"][0]), self._cut
        if since < self.compacted:
            yield _frame("ERROR", status.expired().to_dict())
            return
        while True:
            for revision, type_, resource, body in list(self.events):
                if revision > since:
                    since = revision
                    if resource == kind.resource and namespace in ("", body["metadata"].get("namespace", "")):
                        yield _frame(type_, body)
            if self._cut != cut:
                raise ConnectionResetError("cut")
            changed = self._changed
            await changed.wait()

    async def close(self) -> None:
        self.disconnect()

    def _answer(self, request: Request) -> Object:
        kind, namespace, name, subresource = _parse(request.path)
        body = json.loads(request.body) if request.body else {}
        if request.method == "GET" and not name:
            items = [item for item in self.all(kind) if namespace in ("", item["metadata"].get("namespace", ""))]
            return {"metadata": {"resourceVersion": str(self.revision)}, "items": items}
        if request.method == "POST" and not subresource:
            return self._create(kind, namespace, body)
        key = _key(namespace, name)
        found = self.objects.get(kind.resource, {}).get(key)
        if found is None:
            raise status.not_found(kind.group, kind.plural, name)
        if request.method == "GET":
            return found
        if subresource == "binding":
            return self._bind(kind, key, found, body)
        if request.method == "DELETE":
            return self._delete(kind, key, found, body)
        return self._change(kind, key, found, body, request.method == "PUT")

    def _create(self, kind: Kind, namespace: str, body: Object) -> Object:
        metadata = body.setdefault("metadata", {})
        if "name" not in metadata:
            metadata["name"] = naming.generate_name(metadata["generateName"])
        if namespace:
            metadata["namespace"] = namespace
        if _key(namespace, metadata["name"]) in self.objects.get(kind.resource, {}):
            raise status.already_exists(kind.group, kind.plural, metadata["name"])
        return self.put(kind, body | {"metadata": {**metadata, "generation": 1}})

    def _bind(self, kind: Kind, key: str, pod: Object, body: Object) -> Object:
        if pod["spec"].get("nodeName"):
            raise status.conflict("", "pods", pod["metadata"]["name"], "pod is already assigned to a node")
        spec = pod["spec"] | {"nodeName": body["target"]["name"]}
        self._publish(kind, "MODIFIED", key, pod | {"spec": spec})
        return {}

    def _delete(self, kind: Kind, key: str, found: Object, options: Object) -> Object:
        wanted = options.get("preconditions", {}).get("uid", found["metadata"]["uid"])
        if wanted != found["metadata"]["uid"]:
            raise status.conflict(kind.group, kind.plural, found["metadata"]["name"])
        return self._publish(kind, "DELETED", key, found)

    def _change(self, kind: Kind, key: str, found: Object, body: Object, replace: bool) -> Object:
        metadata = body.get("metadata", {})
        for field in ("uid", "resourceVersion"):
            if field in metadata and metadata[field] != found["metadata"][field]:
                raise status.conflict(kind.group, kind.plural, found["metadata"]["name"])
        merged = body if replace else _merge(found, body)
        if merged == found:
            return found
        if merged.get("spec") != found.get("spec"):
            merged["metadata"] = merged["metadata"] | {"generation": found["metadata"].get("generation", 0) + 1}
        return self._publish(kind, "MODIFIED", key, merged)

    def _publish(self, kind: Kind, type_: str, key: str, body: Object) -> Object:
        self.revision += 1
        body = body | {"metadata": body["metadata"] | {"resourceVersion": str(self.revision)}}
        if type_ == "DELETED":
            del self.objects[kind.resource][key]
        else:
            self.objects[kind.resource][key] = body
        self.events.append((self.revision, type_, kind.resource, body))
        self._wake()
        return body

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _frame(type_: str, body: Object) -> bytes:
    return json.dumps({"type": type_, "object": body}).encode()


def _key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _parse(path: str) -> tuple[Kind, str, str, str]:
    parts = path.strip("/").split("/")
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    kind = scheme.by_plural(group, version, rest[0])
    if kind is None:
        raise status.no_such_resource()
    return kind, namespace, *((*rest[1:], "", "")[:2])  # type: ignore[return-value]


def _merge(old: Any, patch: Any) -> Any:
    """RFC 7386, but lists of things with a `type` merge by it, as conditions do in a strategic patch."""
    if isinstance(old, list) and isinstance(patch, list) and all("type" in entry for entry in [*old, *patch]):
        merged = {entry["type"]: entry for entry in old}
        for entry in patch:
            merged[entry["type"]] = merged.get(entry["type"], {}) | entry
        return list(merged.values())
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value)
    return result
