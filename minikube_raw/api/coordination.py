"""coordination.k8s.io/v1 as read-only views: Lease, the heartbeat of nodes and the token of leaders."""

from __future__ import annotations

from minikube_raw.api.meta import ObjectMeta, View


class LeaseSpec(View, frozen=True, gc=False):
    """coordination/v1.LeaseSpec; both times are MicroTimes. Absent differs from zero, so everything may be None."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(View, frozen=True, gc=False):
    """coordination/v1.Lease."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: LeaseSpec = LeaseSpec()
