"""Bound service-account tokens: serviceaccounts/NAME/token answers a TokenRequest with a signed token.

A token is good for its audiences, until it expires, and while the service account and the object it is bound to are the same
objects as now (`tokenauth` asks). Words, order and claims are Kubernetes' (registry/core/serviceaccount/storage/token.go and
pkg/serviceaccount/claims.go, v1.36).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from minikube_raw.api import naming, status, times
from minikube_raw.api.scheme import Kind, split_api_version
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.jwt import Signer
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources.strategy import Object

TOKEN_REQUEST = Kind(
    group="authentication.k8s.io",
    version="v1",
    kind="TokenRequest",
    plural="tokenrequests",
    singular="tokenrequest",
    definition="io.k8s.api.authentication.v1.TokenRequest",
)
USER_PREFIX = "system:serviceaccount:"
_DEFAULT_SECONDS, _LEAST_SECONDS, _MOST_SECONDS = 3600, 600, 1 << 32
# The kubelet asks for 3607 s where a pod says nothing: such a token warns after an hour and fails after a year, so that clients
# which read their token once keep working (ServiceAccount admission asks for the number, this end knows it).
WARN_ONLY_SECONDS, _EXTENDED_SECONDS = 3607, 365 * 24 * 3600


class Bound(NamedTuple):
    """What a token is bound to beside its account: the objects' metadata, empty for none."""

    pod: Object | None = None
    secret: Object | None = None
    node: Object | None = None


class Tokens:
    """Answers TokenRequests. `audiences` are the API server's own: what a request without audiences gets."""

    def __init__(self, registry: Registry, signer: Signer, issuer: str, audiences: Sequence[str]) -> None:
        self._registry = registry
        self._signer = signer
        self._issuer = issuer
        self._audiences = list(audiences)

    async def create(self, namespace: str, name: str, request: Object, now: datetime) -> Object:
        """Return the defaulted request with its token. Raises 400, 404, 409, 422."""
        metadata, spec = request["metadata"], request["spec"]
        _check_names(metadata, namespace, name)
        account = await self._metadata("serviceaccounts", namespace, name)
        spec["audiences"] = spec.get("audiences") or self._audiences
        if causes := list(_validate(spec)):
            raise status.invalid(TOKEN_REQUEST.group, TOKEN_REQUEST.kind, "", causes)
        bound = await self._bound(namespace, name, spec.get("boundObjectRef"))
        claims = claims_of(self._issuer, account, bound, spec, now, ours=set(spec["audiences"]) <= set(self._audiences))
        expires = now + timedelta(seconds=spec["expirationSeconds"])
        metadata |= {
            "name": name,
            "namespace": namespace,
            "uid": naming.new_uid(),
            "creationTimestamp": times.time(now),
        }
        result = {"token": self._signer.sign(claims), "expirationTimestamp": times.time(expires)}
        spec.setdefault("boundObjectRef", None)  # Go writes the pointer also where it is nil
        return {"kind": TOKEN_REQUEST.kind, "apiVersion": TOKEN_REQUEST.api_version} | request | {"status": result}

    async def _bound(self, namespace: str, account: str, reference: Object | None) -> Bound:
        """Return the objects a token shall live as long as. Raises 400, 404, 409."""
        if not reference:
            return Bound()
        kind, name = reference.get("kind", ""), reference.get("name", "")
        group, version = split_api_version(reference.get("apiVersion", ""))
        plural = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}.get(kind)
        if plural is None or group:
            raise status.bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        entry = await self._registry.core(plural).fresh_entry("" if kind == "Node" else namespace, name)
        found = decode(entry.stored)
        metadata: Object = found["metadata"]
        if kind == "Pod" and found["spec"].get("serviceAccountName") != account:
            text = (
                f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount name.'
            )
            raise status.bad_request(text)
        if reference.get("uid") and reference["uid"] != metadata["uid"]:
            raise status.conflict("", kind, name, other_uid(reference["uid"]))
        if kind == "Pod":
            return Bound(pod=metadata, node=self._node(found["spec"].get("nodeName", "")))
        return Bound(secret=metadata) if kind == "Secret" else Bound(node=metadata)

    def _node(self, name: str) -> Object | None:
        """Return the metadata of a pod's node; only the name where there is no such Node."""
        if not name:
            return None
        entry = self._registry.core("nodes").cache.entries.get(self._registry.core("nodes").key("", name))
        metadata: Object = decode(entry.stored)["metadata"] if entry is not None else {"name": name}
        return metadata

    async def _metadata(self, plural: str, namespace: str, name: str) -> Object:
        entry = await self._registry.core(plural).fresh_entry(namespace, name)
        metadata: Object = decode(entry.stored)["metadata"]
        return metadata


def default(request: Object) -> None:
    """Set what the request leaves open."""
    if request["spec"].get("expirationSeconds") is None:
        request["spec"]["expirationSeconds"] = _DEFAULT_SECONDS


def other_uid(uid: str) -> str:
    """Return the text for a reference to an object that is another one now."""
    return (
        f"the UID in the bound object reference ({uid}) does not match the UID in record. "
        "The object might have been deleted and then recreated"
    )


def claims_of(
    issuer: str, account: Object, bound: Bound, spec: Mapping[str, Any], now: datetime, *, ours: bool
) -> dict[str, Any]:
    """Return the claims of a token; `ours`: it is for this API server alone."""
    begin, lifetime = math.floor(now.timestamp()), spec["expirationSeconds"]
    about = {"namespace": account["namespace"]}
    parts = (("node", bound.node), ("pod", bound.pod), ("secret", bound.secret), ("serviceaccount", account))
    private: dict[str, Any] = about | {name: _reference(metadata) for name, metadata in parts if metadata}
    if ours and bound.pod and lifetime == WARN_ONLY_SECONDS:
        private["warnafter"], lifetime = begin + lifetime, _EXTENDED_SECONDS
    return {
        "aud": spec["audiences"],
        "exp": begin + lifetime,
        "iat": begin,
        "iss": issuer,
        "jti": naming.new_uid(),
        "kubernetes.io": private,
        "nbf": begin,
        "sub": f"{USER_PREFIX}{account['namespace']}:{account['name']}",
    }


def _reference(metadata: Object) -> dict[str, str]:
    return {key: metadata[key] for key in ("name", "uid") if metadata.get(key)}


def _check_names(metadata: Object, namespace: str, name: str) -> None:
    for key, wanted in (("name", name), ("namespace", namespace)):
        given = metadata.get(key)
        if given and given != wanted:
            cause = field.invalid(f"metadata.{key}", given, f"must match the service account {key} if specified")
            raise status.invalid(TOKEN_REQUEST.group, TOKEN_REQUEST.kind, name, [cause])


def _validate(spec: Object) -> Iterator[Cause]:
    seconds, path = spec["expirationSeconds"], "spec.expirationSeconds"
    if seconds < _LEAST_SECONDS:
        yield field.invalid(path, seconds, "may not specify a duration less than 10 minutes")
    if seconds > _MOST_SECONDS:
        yield field.invalid(path, seconds, "may not specify a duration larger than 2^32 seconds")
