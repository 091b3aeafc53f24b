"""Service-account tokens for pods: asked of the API server, kept while they are good, asked again before they end.

The rules are the kubelet's token manager's (pkg/kubelet/token): a token is renewed when 80 % of its life, or 24 hours, have
passed, a few seconds earlier at random so that not all are renewed at once. A renewal that fails leaves the old one in use.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from minikube_raw.api import scheme
from minikube_raw.api.core import Pod
from minikube_raw.api.meta import View
from minikube_raw.api.status import StatusError
from minikube_raw.api.volumes import ServiceAccountTokenProjection
from minikube_raw.client.clock import Clock, Timer, seconds_of
from minikube_raw.client.rest import Client, Resource
from minikube_raw.kubelet.projection import token_sources

MAX_LIFE_SECONDS = 24 * 3600.0
JITTER_SECONDS = 10.0
RETRY_SECONDS = 60.0


class TokenRequestStatus(View, frozen=True, gc=False):
    """The token and when it ends."""

    token: str = ""
    expiration_timestamp: str = ""


class TokenRequest(View, frozen=True, gc=False):
    """authentication/v1.TokenRequest as the API server answers it."""

    status: TokenRequestStatus = TokenRequestStatus()


class TokenError(Exception):
    """A token cannot be had; the text goes into the FailedMount Event."""


class _Held(msgspec.Struct, frozen=True):
    """A token with the times (seconds since the epoch) at which it is renewed and ends."""

    token: str
    renew_at: float
    ends_at: float


_ACCOUNTS = Resource(scheme.SERVICE_ACCOUNT, TokenRequest)


class Tokens:
    """Holds the tokens of a node's pods; `renew` is called with a pod's uid when one of its tokens wants renewal."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        renew: Callable[[str], None],
        jitter: Callable[[], float] = lambda: random.uniform(0, JITTER_SECONDS),
    ) -> None:
        self._client = client
        self._clock = clock
        self._renew = renew
        self._jitter = jitter
        self._held: dict[str, dict[ServiceAccountTokenProjection, _Held]] = {}
        self._timers: dict[str, Timer] = {}

    async def of(self, pod: Pod) -> Mapping[ServiceAccountTokenProjection, str]:
        """Every token that the pod's volumes ask for. Raises TokenError."""
        wanted = list(dict.fromkeys(token_sources(pod)))
        if not wanted:
            return {}
        found = await asyncio.gather(*(self._token(pod, each) for each in wanted))
        self._schedule(pod.metadata.uid)
        return dict(zip(wanted, found, strict=True))

    def release(self, uid: str) -> None:
        """The pod needs none any more."""
        self._held.pop(uid, None)
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()

    async def _token(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> str:
        held = self._held.setdefault(pod.metadata.uid, {})
        old, now = held.get(wanted), self._clock.now()
        if old is not None and now < old.renew_at:
            return old.token
        try:
            new = await self._ask(pod, wanted, now)
        except (OSError, StatusError) as error:
            if old is None:
                raise TokenError(f"failed to fetch token: {error}") from error
            if now >= old.ends_at:
                raise TokenError(
                    f"token {pod.spec.service_account_name} expired and refresh failed: {error}"
                ) from error
            new = msgspec.structs.replace(old, renew_at=now + RETRY_SECONDS)
        held[wanted] = new
        return new.token

    async def _ask(self, pod: Pod, wanted: ServiceAccountTokenProjection, now: float) -> _Held:
        namespace = pod.metadata.namespace
        path = scheme.path(scheme.SERVICE_ACCOUNT, namespace, pod.spec.service_account_name, "token")
        response = await self._client.request("POST", path, body=msgspec.json.encode(_request(pod, wanted)))
        status = _ACCOUNTS.decode(response.body).status
        ends_at = seconds_of(status.expiration_timestamp) or now + wanted.expiration_seconds
        renew_at = renewal(ends_at, wanted.expiration_seconds) - self._jitter()
        return _Held(status.token, renew_at, ends_at)

    def _schedule(self, uid: str) -> None:
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()
        due = min(each.renew_at for each in self._held[uid].values()) - self._clock.now()
        self._timers[uid] = self._clock.call_later(max(due, 0.0), lambda: self._renew(uid))


def renewal(ends_at: float, life: float) -> float:
    """When a token that lives `life` seconds is renewed: after 80 % of it, but at most a day."""
    return min(ends_at - life * 0.2, ends_at - life + MAX_LIFE_SECONDS)


def _request(pod: Pod, wanted: ServiceAccountTokenProjection) -> dict[str, Any]:
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}
    spec = {"expirationSeconds": wanted.expiration_seconds, "boundObjectRef": bound}
    if wanted.audience:
        spec["audiences"] = [wanted.audience]
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
