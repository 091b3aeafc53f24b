"""/openapi/v2 (JSON and protobuf) and /openapi/v3 (an index, a document per group and version), made on first use and kept.

kubectl decides by them what it may do: apply and explain read the schemas, `--validate` and `--dry-run=server` look for the
PATCH parameters `fieldValidation` and `dryRun` of the operation that carries the object's group, version and kind.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from minikube_raw.api import schema as published
from minikube_raw.api import scheme
from minikube_raw.api.scheme import Kind
from minikube_raw.apiserver import openapi_protobuf, schemas
from minikube_raw.apiserver.answers import Answer
from minikube_raw.apiserver.discovery import VIRTUAL
from minikube_raw.apiserver.negotiation import JSON, clauses
from minikube_raw.client.transport import Request

V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_V2_ASKED = frozenset({V2_PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"})
_INFO = {"title": "Kubernetes", "version": "v1.36.2"}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_BODIES = {"post": "create", "put": "replace", "patch": "patch"}
# HTTP method → the words of x-kubernetes-action, for an object's path and a collection's.
_OBJECT = {"get": "get", "put": "put", "patch": "patch", "delete": "delete"}
_COLLECTION = {"get": "list", "post": "post", "delete": "deletecollection"}
_VERBS = {
    "get": "get",
    "list": "list",
    "put": "update",
    "post": "create",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "deletecollection",
}


class Document(NamedTuple):
    """A document in one encoding, with its hash: the ETag and, in v3, the `hash` parameter."""

    body: bytes
    hash: str


class OpenAPI:
    """Serves the documents of these kinds."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = (*kinds, *VIRTUAL)
        self._documents: dict[str, Document] = {}

    def serves(self, path: str) -> bool:
        """Whether there is a document at the path."""
        return path in ("/openapi/v2", "/openapi/v3") or path.removeprefix("/openapi/v3/") in self._paths()

    def answer(self, request: Request) -> Answer:
        """Answer a GET of a document. 304 for who has it, 406 for who wants another encoding."""
        if request.path == "/openapi/v2":
            return self._answer_v2(request)
        if not _accepts(request.accept, {JSON}):
            return Answer(406, b"", JSON)
        if request.path == "/openapi/v3":
            return self._conditional(request, self._get("v3", self._index), JSON, {"Vary": "Accept"})
        return self._answer_v3(request, request.path.removeprefix("/openapi/v3/"))

    def _answer_v2(self, request: Request) -> Answer:
        vary = {"Vary": "Accept-Encoding, Accept"}
        if _accepts(request.accept, _V2_ASKED):
            made = self._get("v2 protobuf", lambda: openapi_protobuf.document(self._v2()))
            return self._conditional(request, made, V2_PROTOBUF, vary)
        if not _accepts(request.accept, {JSON}):
            return Answer(406, b"", JSON, vary)
        return self._conditional(request, self._get("v2", lambda: msgspec.json.encode(self._v2())), JSON, vary)

    def _answer_v3(self, request: Request, path: str) -> Answer:
        document = self._get(path, lambda: self._v3(*self._paths()[path]))
        asked = request.query.get("hash", ("",))[0]
        headers = {"Vary": "Accept", "ETag": f'"{document.hash}"'}
        if asked and asked != document.hash:
            return Answer(301, b"", JSON, {**headers, "Location": f"{request.path}?hash={document.hash}"})
        if asked:
            headers["Cache-Control"] = "public, immutable"
        return self._conditional(request, document, JSON, headers)

    def _conditional(self, request: Request, document: Document, kind: str, headers: dict[str, str]) -> Answer:
        headers = {**headers, "ETag": f'"{document.hash}"'}
        if request.if_none_match == headers["ETag"]:
            return Answer(304, b"", kind, headers)
        return Answer(200, gzip.decompress(document.body), kind, headers)

    def _get(self, name: str, make: Callable[[], bytes]) -> Document:
        document = self._documents.get(name)
        if document is None:
            body = make()
            # Kept compressed: 1.6 MB of core/v1 are 0.2 MB, and clients ask once.
            document = Document(gzip.compress(body, 6, mtime=0), hashlib.sha512(body).hexdigest().upper())
            self._documents[name] = document
        return document

    # --- v3 ---

    def _paths(self) -> dict[str, tuple[str, str]]:
        pairs = dict.fromkeys((kind.group, kind.version) for kind in self._kinds)
        return {f"apis/{group}/{version}" if group else f"api/{version}": (group, version) for group, version in pairs}

    def _index(self) -> bytes:
        paths = {}
        for path, pair in self._paths().items():
            made = self._get(path, lambda pair=pair: self._v3(*pair))  # type: ignore[misc]
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={made.hash}"}
        return msgspec.json.encode({"paths": paths})

    def _v3(self, group: str, version: str) -> bytes:
        kinds = [kind for kind in self._kinds if (kind.group, kind.version) == (group, version)]
        definitions = published.definitions()
        names = schemas.reachable(definitions, _roots(kinds))
        made = {name: schemas.v3(name, definitions[name]) for name in names} | _list_schemas(
            kinds, "components/schemas"
        )
        security = {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}}
        document = {
            "openapi": "3.0.0",
            "info": _INFO,
            "paths": _operations(kinds, _v3_operation),
            "components": {"schemas": made, "securitySchemes": security},
        }
        return msgspec.json.encode(document)

    # --- v2 ---

    def _v2(self) -> dict[str, Any]:
        definitions = published.definitions()
        names = schemas.reachable(definitions, _roots(self._kinds))
        made = {name: schemas.v2(name, definitions[name]) for name in names} | _list_schemas(self._kinds, "definitions")
        return {
            "swagger": "2.0",
            "info": _INFO,
            "paths": _operations(self._kinds, _v2_operation),
            "definitions": made,
        }


def _accepts(accept: str, served: Sequence[str] | frozenset[str] | set[str]) -> bool:
    wanted = [clause.media for clause in clauses(accept)]
    return (not wanted and JSON in served) or any(m in served or (m == "*/*" and JSON in served) for m in wanted)


def _roots(kinds: Sequence[Kind]) -> list[str]:
    """The definitions that a set of kinds needs."""
    roots = [kind.definition for kind in kinds]
    for kind in kinds:
        roots += [sub.definition for sub in map(_travels, kind.subresources) if sub is not None]
    return [*roots, *(_META + name for name in ("DeleteOptions", "ListMeta", "ObjectMeta", "Patch", "Status"))]


def _travels(sub: scheme.Subresource) -> Kind | None:
    """The kind that a subresource's bodies have, where it is not the parent's."""
    packages = {"autoscaling": "autoscaling", "policy": "policy", "authentication.k8s.io": "authentication"}
    if not sub.version and sub.kind != "Binding":
        return None
    package = packages.get(sub.group, "core")
    definition = f"io.k8s.api.{package}.{sub.version or 'v1'}.{sub.kind}"
    return Kind(
        group=sub.group, version=sub.version or "v1", kind=sub.kind, plural="", singular="", definition=definition
    )


def _gvk(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _list_schemas(kinds: Sequence[Kind], where: str) -> dict[str, Any]:
    """Return the list kinds, which the published definitions have too but not for every version."""
    made = {}
    for kind in kinds:
        if "list" not in kind.verbs:
            continue
        items = {
            "type": "array",
            "items": {"$ref": f"#/{where}/{kind.definition}"},
            "description": f"List of {kind.plural}.",
        }
        made[kind.definition + "List"] = {
            "description": f"{kind.kind}List is a list of {kind.plural}.",
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "items": items,
                "metadata": {"$ref": f"#/{where}/{_META}ListMeta"},
            },
            "x-kubernetes-group-version-kind": [{**_gvk(kind), "kind": kind.kind + "List"}],
        }
    return made


Operation = Callable[[Kind, str, str, str, str], dict[str, Any]]


def _operations(kinds: Sequence[Kind], operation: Operation) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for kind in kinds:
        everywhere = scheme.path(kind)
        collection = scheme.path(kind, "{namespace}") if kind.namespaced else everywhere
        if kind.namespaced and "list" in kind.verbs:
            paths[everywhere] = {"get": operation(kind, kind.definition + "List", "get", "list", "ForAllNamespaces")}
        paths[collection] = _item(kind, operation, _COLLECTION, kind.verbs, kind.definition, "")
        if "get" in kind.verbs:
            paths[f"{collection}/{{name}}"] = _item(kind, operation, _OBJECT, kind.verbs, kind.definition, "")
        for sub in kind.subresources:
            travels = _travels(sub)
            shown, definition = (travels, travels.definition) if travels else (kind, kind.definition)
            verbs = ("post" if verb == "create" else "put" if verb == "update" else verb for verb in sub.verbs)
            paths[f"{collection}/{{name}}/{sub.name}"] = {
                method: operation(shown, definition, method, method, sub.name.capitalize()) for method in verbs
            }
    return paths


def _item(
    kind: Kind, operation: Operation, methods: dict[str, str], verbs: Sequence[str], definition: str, suffix: str
) -> dict[str, Any]:
    served = {method: action for method, action in methods.items() if _VERBS[action] in verbs}
    return {
        method: operation(kind, definition + "List" if action == "list" else definition, method, action, suffix)
        for method, action in served.items()
    }


def _identifier(kind: Kind, action: str, suffix: str) -> str:
    group = "".join(part.capitalize() for part in kind.group.removesuffix(".k8s.io").split(".")) or "Core"
    verb = {"get": "read", "post": "create", "put": "replace", "deletecollection": "deleteCollection"}.get(
        action, action
    )
    scope = "Namespaced" if kind.namespaced and suffix != "ForAllNamespaces" else ""
    return f"{verb}{group}{kind.version.capitalize()}{scope}{kind.kind}{suffix}"


def _parameters(method: str, action: str) -> list[tuple[str, str]]:
    """Return the query parameters kubectl looks for, as (name, type)."""
    if method in _BODIES:
        names = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")]
        return [*names, ("force", "boolean")] if method == "patch" else names
    if method == "delete":
        return [("dryRun", "string"), ("gracePeriodSeconds", "integer"), ("propagationPolicy", "string")]
    if action == "list":
        texts = ("continue", "fieldSelector", "labelSelector", "resourceVersion", "resourceVersionMatch")
        return [*((name, "string") for name in texts), ("limit", "integer"), ("watch", "boolean")]
    return []


def _v3_operation(kind: Kind, definition: str, method: str, action: str, suffix: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{definition}"}
    content = {"application/json": {"schema": schema}, "application/yaml": {"schema": schema}}
    made: dict[str, Any] = {
        "tags": [_tag(kind)],
        "operationId": _identifier(kind, action, suffix),
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": type_, "uniqueItems": True}}
            for name, type_ in _parameters(method, action)
        ],
        "responses": {"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
    }
    if method == "patch":
        patch = {"schema": {"$ref": f"#/components/schemas/{_META}Patch"}}
        made["requestBody"] = {"content": dict.fromkeys(_PATCHES, patch), "required": True}
    elif method in _BODIES:
        made["requestBody"] = {"content": {"*/*": {"schema": schema}}, "required": True}
    return made


def _v2_operation(kind: Kind, definition: str, method: str, action: str, suffix: str) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "type": type_, "uniqueItems": True} for name, type_ in _parameters(method, action)
    ]
    if method in _BODIES:
        body = _META + "Patch" if method == "patch" else definition
        parameters.insert(
            0, {"name": "body", "in": "body", "required": True, "schema": {"$ref": f"#/definitions/{body}"}}
        )
    return {
        "tags": [_tag(kind)],
        "operationId": _identifier(kind, action, suffix),
        "consumes": list(_PATCHES) if method == "patch" else ["*/*"],
        "produces": ["application/json", "application/yaml"],
        "parameters": parameters,
        "responses": {
            "200": {"description": "OK", "schema": {"$ref": f"#/definitions/{definition}"}},
            "401": {"description": "Unauthorized"},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
    }


def _tag(kind: Kind) -> str:
    return f"{kind.group.removesuffix('.k8s.io').replace('.', '') or 'core'}_{kind.version}"
