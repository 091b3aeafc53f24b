"""Bearer tokens of service accounts to users: signature, audience, time, and whether what the token is bound to still exists.

The signature of a token is judged once and remembered by digest; everything that can change is looked at on every request,
in the cache of objects (pkg/serviceaccount/jwt.go and claims.go, v1.36).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from minikube_raw.api import times
from minikube_raw.apiserver import jwt
from minikube_raw.apiserver.auth import AUTHENTICATED, User
from minikube_raw.apiserver.changes import Entry
from minikube_raw.apiserver.jwt import PublicKey
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.tokens import USER_PREFIX

# go-jose's leeway for clocks that differ; what was deleted within it still counts.
LEEWAY_SECONDS = 60.0
_REMEMBERED = 4096
_EXTRA = "authentication.kubernetes.io/"


class TokenError(Exception):
    """Why a token is not accepted, in Kubernetes' words."""


class Authenticated(NamedTuple):
    """Whom a token speaks for, and which of the wanted audiences it is for."""

    user: User
    audiences: list[str]


class TokenAuthenticator:
    """Knows the service accounts' tokens. `audiences` are the API server's own, `now` gives the wall time."""

    def __init__(
        self,
        registry: Registry,
        keys: Sequence[PublicKey],
        issuer: str,
        audiences: Sequence[str],
        now: Callable[[], datetime],
    ) -> None:
        self._registry = registry
        self._keys = keys
        self._issuer = issuer
        self._audiences = list(audiences)
        self._now = now
        self._known: OrderedDict[bytes, jwt.Claims] = OrderedDict()

    def authenticate(self, token: str, audiences: Sequence[str] = ()) -> Authenticated:
        """Return whose token it is. `audiences` instead of the server's own. Raises TokenError."""
        claims = self._claims(token)
        wanted, named = list(audiences) or self._audiences, claims.get("aud") or []
        named = [named] if isinstance(named, str) else named
        both = [audience for audience in wanted if audience in named]
        if not both:
            text = f"token audiences {_quoted(named)} is invalid for the target audiences {_quoted(wanted)}"
            raise TokenError(f"[invalid bearer token, {text}]")
        try:
            return Authenticated(self._user(claims), both)
        except TokenError as error:
            raise TokenError(f"[invalid bearer token, {error}]") from None

    def _claims(self, token: str) -> jwt.Claims:
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        claims = self._known.get(digest)
        if claims is None:
            try:
                if jwt.peek(token).get("iss") != self._issuer:
                    raise TokenError("invalid bearer token")
                claims = jwt.verify(token, self._keys)
            except jwt.JWTError:
                raise TokenError("invalid bearer token") from None
            self._known[digest] = claims
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(digest)
        return claims

    def _user(self, claims: jwt.Claims) -> User:
        """Return the user of claims that hold now. Raises TokenError."""
        now = self._now().timestamp()
        if now > claims.get("exp", 0) + LEEWAY_SECONDS:
            raise TokenError("service account token has expired")
        if now < claims.get("nbf", 0) - LEEWAY_SECONDS:
            raise TokenError("service account token is not valid yet")
        private = claims.get("kubernetes.io") or {}
        namespace, account = private.get("namespace", ""), private.get("serviceaccount") or {}
        self._same("serviceaccounts", "service account", namespace, account)
        for plural, kind in (("secrets", "secret"), ("pods", "pod")):
            if private.get(kind):
                self._same(plural, kind, namespace, private[kind])
        if private.get("node") and not private.get("pod"):
            self._same("nodes", "node", "", private["node"])
        return _user(namespace, account, private, claims.get("jti", ""))

    def _same(self, plural: str, kind: str, namespace: str, reference: Any) -> None:
        """Raise TokenError unless the object of this name is the one that was meant, and not long deleted."""
        resource, name, uid = self._registry.core(plural), reference.get("name", ""), reference.get("uid", "")
        entry = resource.cache.entries.get(resource.key(namespace, name))
        if entry is None:
            if kind == "service account":
                raise TokenError(f'serviceaccounts "{name}" not found')
            raise TokenError("service account token has been invalidated")
        metadata = decode(entry.value)["metadata"]
        if metadata["uid"] != uid:
            text = f"{kind} UID ({metadata['uid']}) does not match"
            raise TokenError(
                f"{text} {'claim' if kind == 'service account' else f'service account {kind} ref claim'} ({uid})"
            )
        if self._long_deleted(entry, metadata):
            gone = f"service account {namespace}/{name} has been deleted"
            raise TokenError(gone if kind == "service account" else "service account token has been invalidated")

    def _long_deleted(self, entry: Entry, metadata: Any) -> bool:
        deleted = metadata.get("deletionTimestamp")
        return bool(deleted) and times.seconds_since(deleted, self._now()) > LEEWAY_SECONDS


def _user(namespace: str, account: Any, private: Any, token_id: str) -> User:
    extra = {f"{_EXTRA}credential-id": (f"JTI={token_id}",)} if token_id else {}
    for kind in ("node", "pod"):
        if private.get(kind):
            extra[f"{_EXTRA}{kind}-name"] = (private[kind].get("name", ""),)
            if private[kind].get("uid"):
                extra[f"{_EXTRA}{kind}-uid"] = (private[kind]["uid"],)
    name = f"{USER_PREFIX}{namespace}:{account.get('name', '')}"
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(name, groups, account.get("uid", ""), extra)


def _quoted(texts: Sequence[str]) -> str:
    """Write as Go's %q does for a slice."""
    return "[" + " ".join(f'"{text}"' for text in texts) + "]"
