"""Questions about oneself and others: SelfSubjectReview, TokenReview, the SubjectAccessReview family. Nothing is stored."""

from __future__ import annotations

from typing import Any

from minikube_raw.api import status, times
from minikube_raw.apiserver import answers, bodies, negotiation
from minikube_raw.apiserver.answers import Answer
from minikube_raw.apiserver.auth import MASTERS, Authorizer, User
from minikube_raw.apiserver.discovery import VIRTUAL
from minikube_raw.apiserver.issuer import Issuer
from minikube_raw.apiserver.registry import Now
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.apiserver.routes import RequestInfo
from minikube_raw.apiserver.tokenauth import TokenError
from minikube_raw.client.transport import Request

_KINDS = {(kind.group, kind.version, kind.plural): kind for kind in VIRTUAL if kind.group}


class Reviews:
    """Answers reviews by asking the authorizer, and about tokens their issuer."""

    def __init__(self, authorize: Authorizer, issuer: Issuer | None, now: Now) -> None:
        self._authorize = authorize
        self._issuer = issuer
        self._now = now

    def serves(self, info: RequestInfo) -> bool:
        """Whether the request is for a review."""
        return (info.group, info.version, info.resource) in _KINDS

    def answer(self, request: Request, user: User, info: RequestInfo) -> Answer:
        """Answer a review. Raises 400, 405."""
        if info.verb != "create":
            raise status.method_not_allowed()
        kind = _KINDS[info.group, info.version, info.resource]
        wanted = negotiation.negotiate(request.accept)
        review = bodies.decode(kind, request, "Warn").obj
        result: Object = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {}}
        if kind.kind == "SelfSubjectReview":
            result["metadata"] = {"creationTimestamp": times.time(self._now())}
            result["status"] = {"userInfo": user_info(user)}
        elif kind.kind == "TokenReview":
            result |= {"spec": review.get("spec") or {}, "status": self._token(review.get("spec") or {})}
        elif kind.kind == "SelfSubjectRulesReview":
            result |= {"spec": {}, "status": _rules(user)}
        else:
            result |= {"spec": review.get("spec") or {}, "status": self._access(user, review.get("spec") or {})}
        return answers.document(result, wanted, 201)

    def _access(self, user: User, spec: Object) -> Object:
        if spec.get("user"):
            extra = {key: tuple(values or ()) for key, values in (spec.get("extra") or {}).items()}
            user = User(spec["user"], tuple(spec.get("groups") or ()), spec.get("uid", ""), extra)
        info = _asked(spec)
        decision = self._authorize(user, info, {})
        found: Object = {"allowed": decision.allowed}
        if decision.reason:
            found["reason"] = decision.reason
        return found

    def _token(self, spec: Object) -> Object:
        if not spec.get("token"):
            raise status.bad_request("token is required for TokenReview in authentication")
        try:
            if self._issuer is None:
                raise TokenError("invalid bearer token")
            found = self._issuer.authenticator.authenticate(spec["token"], spec.get("audiences") or ())
        except TokenError as error:
            return {"user": {}, "error": str(error)}
        return {"authenticated": True, "user": user_info(found.user), "audiences": found.audiences}


def user_info(user: User) -> Object:
    """Return a user as authentication.k8s.io's UserInfo."""
    found: Object = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": dict(user.extra)}
    return {key: value for key, value in found.items() if value}


def _asked(spec: Object) -> RequestInfo:
    """Return the request an access review describes."""
    path, about = spec.get("nonResourceAttributes"), spec.get("resourceAttributes") or {}
    if path is not None:
        return RequestInfo(verb=path.get("verb", ""), path=path.get("path", ""))
    return RequestInfo(
        verb=about.get("verb", ""),
        path="",
        is_resource=True,
        group=about.get("group", ""),
        version=about.get("version", "") or "v1",
        namespace=about.get("namespace", ""),
        resource=about.get("resource", ""),
        subresource=about.get("subresource", ""),
        name=about.get("name", ""),
    )


def _rules(user: User) -> dict[str, Any]:
    """Return the rules of a user as SelfSubjectRulesReview lists them; a node's are not rules of RBAC and so incomplete."""
    public = {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/api", "/apis"]}
    reviews = [kind for kind in VIRTUAL if kind.plural.startswith("self")]
    found: dict[str, Any] = {
        "resourceRules": [
            {"verbs": ["create"], "apiGroups": [kind.group], "resources": [kind.plural]} for kind in reviews
        ],
        "nonResourceRules": [public],
        "incomplete": MASTERS not in user.groups,
    }
    if MASTERS in user.groups:
        found["resourceRules"].append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
        found["nonResourceRules"].append({"verbs": ["*"], "nonResourceURLs": ["*"]})
    return found
