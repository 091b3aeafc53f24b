"""Leases. Renewals in kube-node-lease are the heartbeats of nodes, and need not be on disk when they are acknowledged."""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api import ages, scheme
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.resources.strategy import AGE_COLUMN, NAME_COLUMN, Column, Object, Strategy

HEARTBEATS = "kube-node-lease"


def _default(lease: Object) -> None:
    lease.setdefault("spec", {})


def _admit(lease: Object) -> None:
    # Fields of coordinated leader election, a feature that is off: kept out of what is stored, as Kubernetes does.
    for name in ("preferredHolder", "strategy"):
        lease["spec"].pop(name, None)


def _validate(lease: Object) -> Iterator[Cause]:
    spec = lease.get("spec") or {}
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        yield field.invalid("spec.leaseDurationSeconds", duration, "must be greater than 0")
    if transitions is not None and transitions < 0:
        yield field.invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0")


LEASE = Strategy(
    kind=scheme.LEASE,
    default=_default,
    admit=_admit,
    validate=_validate,
    create_on_update=True,
    is_lazy=lambda lease: lease["metadata"].get("namespace") == HEARTBEATS,
    columns=(NAME_COLUMN, Column("Holder", description="Who holds the lease."), AGE_COLUMN),
    cells=lambda lease, now: [
        lease["metadata"]["name"],
        (lease.get("spec") or {}).get("holderIdentity") or "",
        ages.age(lease["metadata"].get("creationTimestamp"), now),
    ],
)
STRATEGIES = (LEASE,)
