"""Leases: a node's heartbeat and the election of one leader among several masters (client-go tools/leaderelection).

A leader renews in time or stops by itself before anyone else may take over; clocks of different hosts are never
compared: what counts is how long the other's renewal has not changed as seen by our own monotonic clock.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from minikube_raw.api.coordination import Lease
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock, SystemClock, micro_timestamp, sleep
from minikube_raw.client.resources import LEASES
from minikube_raw.client.rest import Client

log = logging.getLogger(__name__)


class LeaseHolder:
    """One Lease object as one identity would hold it. `duration` is seconds, written as leaseDurationSeconds."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration: int,
        owner: dict[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.identity, self.duration = identity, duration
        self._client, self._namespace, self._name = client, namespace, name
        self._owner = owner
        self.clock: Clock = clock or SystemClock()
        self._seen: tuple[str | None, str | None] = (None, None)
        self._seen_at = 0.0

    async def renew(self) -> None:
        """Heartbeat: make the Lease ours as of now, whoever wrote it last. Raises StatusError, OSError."""
        now = micro_timestamp(self.clock.now())
        spec = {"holderIdentity": self.identity, "leaseDurationSeconds": self.duration, "renewTime": now}
        try:
            await self._client.patch(LEASES, self._name, {"spec": spec}, self._namespace)
        except StatusError as error:
            if error.code != 404:
                raise
            await self._client.create(LEASES, self._body(spec), self._namespace)

    async def try_acquire(self) -> bool:
        """Take the Lease if it is free, ours, or was not renewed for its duration; False when another holds it."""
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except StatusError as error:
            if error.code != 404:
                raise
            return await self._attempt(self._client.create(LEASES, self._body(self._held(None)), self._namespace))
        if self._held_by_another(lease):
            return False
        body = {"metadata": {"resourceVersion": lease.metadata.resource_version}, "spec": self._held(lease)}
        return await self._attempt(self._client.patch(LEASES, self._name, body, self._namespace))

    async def release(self) -> None:
        """Give up the Lease at once, so that the next leader need not wait it out."""
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_timestamp(self.clock.now())}
        await self._client.patch(LEASES, self._name, {"spec": spec}, self._namespace)

    def _held_by_another(self, lease: Lease) -> bool:
        record = (lease.spec.holder_identity, lease.spec.renew_time)
        if record != self._seen:
            self._seen, self._seen_at = record, self.clock.monotonic()
        if not lease.spec.holder_identity or lease.spec.holder_identity == self.identity:
            return False
        return self.clock.monotonic() < self._seen_at + (lease.spec.lease_duration_seconds or self.duration)

    def _held(self, previous: Lease | None) -> dict[str, Any]:
        now = micro_timestamp(self.clock.now())
        held = {"holderIdentity": self.identity, "leaseDurationSeconds": self.duration, "renewTime": now}
        if previous is None:
            return held | {"acquireTime": now, "leaseTransitions": 0}
        if previous.spec.holder_identity != self.identity:
            held |= {"acquireTime": now, "leaseTransitions": (previous.spec.lease_transitions or 0) + 1}
        return held

    def _body(self, spec: dict[str, Any]) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": self._name, "namespace": self._namespace}
        if self._owner is not None:
            metadata["ownerReferences"] = [self._owner]
        return {"apiVersion": LEASES.kind.api_version, "kind": LEASES.kind.kind, "metadata": metadata, "spec": spec}

    async def _attempt(self, write: Awaitable[Lease]) -> bool:
        try:
            await write
        except StatusError as error:
            if error.code == 409:
                return False
            raise
        return True


async def lead(
    lease: LeaseHolder, started: Callable[[], None], *, renew_deadline: float = 10.0, retry: float = 2.0
) -> None:
    """Wait to become the leader, call `started`, and renew; return when leadership is lost. Times are seconds.

    renew_deadline is shorter than the Lease's duration: a leader that cannot renew stops before the next one starts.
    """
    clock = lease.clock
    while not await _tried(lease):
        await sleep(clock, retry)
    log.info("%s became the leader", lease.identity)
    started()
    renewed = clock.monotonic()
    while clock.monotonic() < renewed + renew_deadline:
        await sleep(clock, retry)
        attempt = clock.monotonic()
        if await _tried(lease):
            renewed = attempt
    log.warning("%s lost the leadership", lease.identity)


async def _tried(lease: LeaseHolder) -> bool:
    try:
        return await lease.try_acquire()
    except (StatusError, OSError) as error:
        log.warning("lease not renewed by %s: %s", lease.identity, error)
        return False
