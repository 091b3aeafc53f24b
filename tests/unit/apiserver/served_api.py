"""A client in process for tests of the API server, and the objects they make."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from minikube_raw.apiserver.auth import AUTHENTICATED, MASTERS, User
from minikube_raw.apiserver.server import APIServer
from minikube_raw.client.transport import Request, Response

ADMIN = User("kubernetes-admin", (MASTERS, AUTHENTICATED))
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
CORE = "/api/v1/namespaces/default/"
APPS = "/apis/apps/v1/namespaces/default/"


class Api:
    """Requests as one user; paths may have a query. Bodies are plain data, or text sent as it is."""

    def __init__(self, server: APIServer, user: User = ADMIN) -> None:
        self.server = server
        self.user = user

    def as_user(self, name: str, *groups: str) -> Api:
        return Api(self.server, User(name, (*groups, AUTHENTICATED)))

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Request:
        parts = urlsplit(path)
        query: dict[str, tuple[str, ...]] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            query[name] = (*query.get(name, ()), value)
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body, ensure_ascii=False)
        given = {name.lower(): value for name, value in (headers or {}).items()}
        return Request(
            method,
            unquote(parts.path),
            query,
            text.encode("utf-8", "surrogatepass"),
            given.get("content-type", "application/json"),
            given.get("accept", "application/json"),
            "test",
        )

    async def send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[Response, Any]:
        response = await self.server.handle(self.request(method, path, body, headers), self.user)
        is_json = response.content_type.startswith("application/json") and response.body
        return response, json.loads(response.body) if is_json else response.body.decode()

    async def get(self, path: str, code: int = 200, accept: str = "application/json") -> Any:
        return await self._expect(code, "GET", path, None, {"Accept": accept})

    async def create(self, path: str, obj: Any, code: int = 201) -> Any:
        return await self._expect(code, "POST", path, obj)

    async def update(self, path: str, obj: Any, code: int = 200) -> Any:
        return await self._expect(code, "PUT", path, obj)

    async def patch(self, path: str, patch: Any, code: int = 200, media: str = MERGE) -> Any:
        return await self._expect(code, "PATCH", path, patch, {"Content-Type": media})

    async def delete(self, path: str, code: int = 200, options: Any = None) -> Any:
        return await self._expect(code, "DELETE", path, options)

    async def _expect(
        self, code: int, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> Any:
        response, obj = await self.send(method, path, body, headers)
        assert response.code == code, (method, path, response.code, obj)
        return obj

    def watch(self, path: str) -> AsyncIterator[bytes]:
        return self.server.watch(self.request("GET", path), self.user)


def config_map(name: str, data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data or {}}


def binding(name: str, node: str) -> dict[str, Any]:
    target = {"kind": "Node", "name": node}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "busybox"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def workload(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "busybox"}]}}
    wish = {"selector": {"matchLabels": {"app": name}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": wish}


def claim(name: str, size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    wish = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": wish}


def volume(name: str, size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    source = {"hostPath": {"path": "/x"}} if not spec.keys() & {"local", "nfs"} else {}
    wish = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, **source, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": wish}


def storage_class(name: str, provisioner: str, *, default: bool = False, **fields: Any) -> dict[str, Any]:
    annotations = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}} if default else {}
    head = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
    return {**head, "metadata": {"name": name, **annotations}, "provisioner": provisioner, **fields}
