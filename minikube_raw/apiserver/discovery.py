"""What is served here, for clients that ask before they speak: plain and aggregated discovery, from the table of kinds.

Virtual resources (bindings, access reviews) are listed by rows of their own, since nothing of them is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from minikube_raw.api import scheme
from minikube_raw.api.scheme import Kind, Subresource
from minikube_raw.apiserver.negotiation import JSON, Clause, clauses

AGGREGATED = f"{JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
# Served by handlers, not by the registry: created, answered, forgotten.
VIRTUAL: tuple[Kind, ...] = (
    Kind(
        group="",
        version="v1",
        kind="Binding",
        plural="bindings",
        singular="binding",
        definition="io.k8s.api.core.v1.Binding",
        verbs=("create",),
    ),
    *(
        Kind(
            group="authentication.k8s.io",
            version="v1",
            kind=kind,
            plural=kind.lower() + "s",
            singular=kind.lower(),
            definition=f"io.k8s.api.authentication.v1.{kind}",
            namespaced=False,
            verbs=("create",),
        )
        for kind in ("SelfSubjectReview", "TokenReview")
    ),
    *(
        Kind(
            group="authorization.k8s.io",
            version="v1",
            kind=kind,
            plural=kind.lower() + "s",
            singular=kind.lower(),
            definition=f"io.k8s.api.authorization.v1.{kind}",
            namespaced=kind.startswith("Local"),
            verbs=("create",),
        )
        for kind in (
            "LocalSubjectAccessReview",
            "SelfSubjectAccessReview",
            "SelfSubjectRulesReview",
            "SubjectAccessReview",
        )
    ),
)


# What handlers exist for; others of the table are neither found nor listed.
SERVED_SUBRESOURCES = frozenset(
    {
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "finalize",
        "log",
        "portforward",
        "proxy",
        "resize",
        "scale",
        "status",
        "token",
    }
)


# Services lead nowhere yet, so nothing can be passed on to them.
_NOT_SERVED = frozenset({("services", "proxy")})


def served(kind: Kind) -> Kind:
    """Return the row with those subresources only that are served here."""
    return msgspec.structs.replace(kind, subresources=tuple(s for s in kind.subresources if serves(kind, s.name)))


def serves(kind: Kind, subresource: str) -> bool:
    """Whether a subresource of the kind is served here."""
    if kind.subresource(subresource) is None:
        return False
    return subresource in SERVED_SUBRESOURCES and (kind.plural, subresource) not in _NOT_SERVED


# Computed when they are asked for, from what kubelets tell; no published schema describes them.
COMPUTED: tuple[Kind, ...] = tuple(
    Kind(
        group="metrics.k8s.io",
        version="v1beta1",
        kind=kind,
        plural=plural,
        singular="",
        definition="",
        namespaced=plural == "pods",
        verbs=("get", "list"),
    )
    for kind, plural in (("NodeMetrics", "nodes"), ("PodMetrics", "pods"))
)


class Discovery:
    """The discovery documents, built once."""

    def __init__(self, kinds: Sequence[Kind], address: str) -> None:
        self._kinds = sorted((*kinds, *VIRTUAL, *COMPUTED), key=lambda kind: kind.plural)
        self._address = address
        groups = dict.fromkeys(kind.group for kind in scheme.KINDS if kind.group)
        self.groups = list(groups | dict.fromkeys(kind.group for kind in (*VIRTUAL, *COMPUTED) if kind.group))
        self._aggregated = {path: self._aggregate(names) for path, names in (("/api", [""]), ("/apis", self.groups))}

    def versions(self, group: str) -> list[str]:
        """Return a group's versions, the preferred one first."""
        return list(dict.fromkeys(kind.version for kind in self._kinds if kind.group == group))

    def plain(self, path: str) -> dict[str, Any] | None:
        """Return the document under /api, /apis, or a group or version of them; None if there is none."""
        parts = path.strip("/").split("/")
        if parts == ["api"]:
            address = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address}]
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": address}
        if parts == ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [self._group(g) for g in self.groups]}
        if parts[0] == "apis" and len(parts) == 2 and parts[1] in self.groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **self._group(parts[1])}
        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[-1])
        if version not in self.versions(group):
            return None
        return self._resources(group, version)

    def aggregated(self, path: str) -> tuple[bytes, str]:
        """Return the aggregated document of /api or /apis and its ETag."""
        return self._aggregated[path.rstrip("/")]

    def _group(self, group: str) -> dict[str, Any]:
        versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in self.versions(group)]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _resources(self, group: str, version: str) -> dict[str, Any]:
        resources = []
        for kind in self._of(group, version):
            resources.append(_resource(kind))
            resources += [_subresource(kind, sub) for sub in kind.subresources]
        head = {"kind": "APIResourceList"} if not group else {"kind": "APIResourceList", "apiVersion": "v1"}
        group_version = f"{group}/{version}" if group else version
        return {**head, "groupVersion": group_version, "resources": resources}

    def _of(self, group: str, version: str) -> list[Kind]:
        return [kind for kind in self._kinds if (kind.group, kind.version) == (group, version)]

    def _aggregate(self, groups: list[str]) -> tuple[bytes, str]:
        items = []
        for group in groups:
            versions = [
                {
                    "version": version,
                    "resources": [_aggregated_resource(kind) for kind in self._of(group, version)],
                    "freshness": "Current",
                }
                for version in self.versions(group)
            ]
            items.append({"metadata": {"name": group} if group else {}, "versions": versions})
        head = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
        body = msgspec.json.encode({**head, "items": items})
        return body, f'"{hashlib.sha512(body).hexdigest().upper()}"'


def wants_aggregated(accept: str) -> bool:
    """Whether the first acceptable clause asks for aggregated discovery."""
    return next((is_aggregated for clause in clauses(accept) if (is_aggregated := _judge(clause)) is not None), False)


def _judge(clause: Clause) -> bool | None:
    """Return whether a clause is the aggregated form, or plain; None for one that is neither."""
    if clause.media not in (JSON, "*/*"):
        return None
    if not clause.parameters.get("as"):
        return False
    wanted = (clause.parameters.get("g"), clause.parameters.get("v"), clause.parameters["as"])
    return True if wanted == ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") else None


def _resource(kind: Kind) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    }
    if kind.short_names:
        found["shortNames"] = kind.short_names
    if kind.categories:
        found["categories"] = kind.categories
    if kind.storage_version_hash:
        found["storageVersionHash"] = kind.storage_version_hash
    return found


def _subresource(kind: Kind, sub: Subresource) -> dict[str, Any]:
    found: dict[str, Any] = {"name": f"{kind.plural}/{sub.name}", "singularName": "", "namespaced": kind.namespaced}
    if sub.version:
        found |= {"group": sub.group, "version": sub.version}
    return {**found, "kind": sub.kind, "verbs": sub.verbs}


def _aggregated_resource(kind: Kind) -> dict[str, Any]:
    found: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": {"group": "", "version": "", "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    }
    if kind.short_names:
        found["shortNames"] = kind.short_names
    if kind.categories:
        found["categories"] = kind.categories
    if kind.subresources:
        found["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                "verbs": sub.verbs,
            }
            for sub in kind.subresources
        ]
    return found
