"""Who is asking, and whether they may. Client certificates say who: CN is the user, each O a group, as in Kubernetes; so do the
bearer tokens of service accounts (`tokenauth`).

Besides the components in this process, administrators (system:masters) may do everything, nodes what a node's agent needs
(`nodes.py`), other authenticated users discovery and questions about themselves. Everybody may ask for health and version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from minikube_raw.api import status

from .routes import RequestInfo

MASTERS = "system:masters"
NODES = "system:nodes"
AUTHENTICATED = "system:authenticated"
NODE_PREFIX = "system:node:"

# The clusterrole system:public-info-viewer: these paths need no identity.
PUBLIC_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version", "/version/"})
# The clusterrole system:service-account-issuer-discovery, which every service account has.
ISSUER_PATHS = frozenset(
    path + slash for path in ("/.well-known/openid-configuration", "/openid/v1/jwks") for slash in ("", "/")
)
SERVICE_ACCOUNTS = "system:serviceaccounts"


class User(msgspec.Struct, frozen=True):
    """An authenticated user: authentication.k8s.io's UserInfo."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = {}

    @property
    def node_name(self) -> str:
        """The node this user is the agent of, empty for others."""
        if NODES in self.groups and self.name.startswith(NODE_PREFIX):
            return self.name.removeprefix(NODE_PREFIX)
        return ""


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
# The API server's own user, for what it does by itself (default namespaces, calls through the loopback).
LOOPBACK = User("system:apiserver", (MASTERS, AUTHENTICATED))


class Decision(msgspec.Struct, frozen=True):
    """Whether a request is allowed; `reason` goes into the 403's message."""

    allowed: bool
    reason: str = ""


ALLOW = Decision(True)
Authorizer = Callable[[User, RequestInfo, Mapping[str, tuple[str, ...]]], Decision]


def from_certificate(subject: Mapping[str, Any] | None) -> User | None:
    """Read the user from a verified certificate, as ssl's getpeercert() gives it; None without certificate or CN."""
    if not subject:
        return None
    names, groups = [], []
    for attributes in subject.get("subject", ()):
        for attribute, value in attributes:
            if attribute == "commonName":
                names.append(value)
            elif attribute == "organizationName":
                groups.append(value)
    return User(names[-1], (*groups, AUTHENTICATED)) if names else None


# From a bearer token to its user; None for a token of nobody.
Bearer = Callable[[str], User | None]


def authenticate(certificate: Mapping[str, Any] | None, authorization: str, path: str, bearer: Bearer) -> User:
    """Return who asks. Raises 401 when nobody stands behind the request and `path` is not public, or for an unknown token."""
    user = from_certificate(certificate)
    if user is not None:
        return user
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        user = bearer(token.strip())
        if user is None:
            raise status.unauthorized()
        return user
    if not is_public(path):
        raise status.unauthorized()
    return ANONYMOUS


def is_public(path: str) -> bool:
    """Whether everybody may get this path, known or not."""
    return path in PUBLIC_PATHS or path.startswith(("/healthz/", "/livez/", "/readyz/"))


class TwoIdentities:
    """The authorizer: administrators all, components in this process all, nodes by `node_rule`, others public paths and discovery."""

    def __init__(self, node_rule: Authorizer) -> None:
        self._node_rule = node_rule

    def __call__(self, user: User, info: RequestInfo, query: Mapping[str, tuple[str, ...]]) -> Decision:
        """Decide."""
        if MASTERS in user.groups or user.name in COMPONENTS:
            return ALLOW
        if not info.is_resource:
            return Decision(info.verb == "get" and (is_public(info.path) or _is_discovery(user, info.path)))
        if info.group in ("authorization.k8s.io", "authentication.k8s.io") and info.resource.startswith("self"):
            return Decision(AUTHENTICATED in user.groups)  # clusterrole system:basic-user
        if user.node_name:
            return self._node_rule(user, info, query)
        return Decision(False)


COMPONENTS = frozenset({"system:kube-scheduler", "system:kube-controller-manager"})


def _is_discovery(user: User, path: str) -> bool:
    """The clusterroles system:discovery, which every authenticated user has, and system:service-account-issuer-discovery."""
    if AUTHENTICATED not in user.groups:
        return False
    if path in ISSUER_PATHS:
        return SERVICE_ACCOUNTS in user.groups
    first = path.strip("/").split("/")[0]
    return first in ("api", "apis", "openapi")


def refusal(user: User, info: RequestInfo, reason: str) -> status.StatusError:
    """Return the 403 of a request that authorization refused."""
    tail = f": {reason}" if reason else ""
    if not info.is_resource:
        return status.forbidden("", "", "", f'User "{user.name}" cannot {info.verb} path "{info.path}"{tail}')
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    text = f'User "{user.name}" cannot {info.verb} resource "{resource}" in API group "{info.group}" {where}{tail}'
    return status.forbidden(info.group, info.resource, info.name, text)
