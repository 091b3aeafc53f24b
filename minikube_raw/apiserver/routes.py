"""From a method and a path to what is asked for, as kube-apiserver sees it (endpoints/request/requestinfo.go).

Pure text work: whether the resource exists, and whether the user may, is decided later with the `RequestInfo` made here.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# Subresources of a namespace itself: /api/v1/namespaces/NAME/status is not a resource "status" inside a namespace.
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


class RequestInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for. For a non-resource path only `verb` and `path` mean anything."""

    verb: str
    path: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    # What follows the subresource: the path behind /proxy/, and for all others a reason to answer 404.
    rest: str = ""

    @property
    def group_resource(self) -> str:
        """`deployments.apps`, or `pods` in the core group: how messages name a resource."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


def parse(method: str, path: str, query: Mapping[str, tuple[str, ...]]) -> RequestInfo:
    """Return what `method` on `path` (unquoted) asks for; never fails: an unknown path is a non-resource request."""
    parts = path.strip("/").split("/")
    plain = RequestInfo(verb=method.lower(), path=path)
    if parts[0] == "api" and len(parts) >= 3:
        group, version, parts = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return plain
    verb = _VERBS.get(method, method.lower())
    if parts[0] == "watch" and len(parts) > 1:  # the deprecated /api/v1/watch/…
        verb, parts = "watch", parts[1:]
    namespace, parts = _namespace(parts)
    resource, name, subresource, rest = (*parts[:3], *[""] * (3 - len(parts[:3])), "/".join(parts[3:]))
    return RequestInfo(
        verb=_collection_verb(verb, query) if not name else verb,
        path=path,
        is_resource=True,
        group=group,
        version=version,
        namespace=namespace,
        resource=resource,
        name=name,
        subresource=subresource,
        rest=rest,
    )


def _namespace(parts: list[str]) -> tuple[str, list[str]]:
    if parts[0] != "namespaces" or len(parts) < 2:
        return "", parts
    if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
        return parts[1], parts[2:]
    return parts[1], parts


def _collection_verb(verb: str, query: Mapping[str, tuple[str, ...]]) -> str:
    if verb == "get":
        return "watch" if is_true(query.get("watch", ())) else "list"
    return "deletecollection" if verb == "delete" else verb


def is_true(values: tuple[str, ...]) -> bool:
    """Whether a boolean query parameter is set, read as Kubernetes does: anything but "", "0" and "false" is true."""
    return bool(values) and values[0].lower() not in ("false", "0", "")
