"""What can be set about the controllers; the defaults are kube-controller-manager's."""

from __future__ import annotations

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds.

    node_grace_period: how long after a node's last Lease renewal its Ready becomes Unknown.
    eviction_seconds: instead of a toleration's own tolerationSeconds for unreachable and not-ready nodes; None: the pod's.
    force_delete_on_dead_nodes: remove terminating pods of unreachable nodes, so that what waits for their end goes on.
    orphan_pods_seconds: how long pods outlive the Node object they ran on.
    terminated_pods_kept: how many ended pods are kept before the oldest go.
    """

    cluster_cidr: str = "10.244.0.0/16"
    node_cidr_mask: int = 24
    root_ca: str = ""
    node_grace_period: float = 40.0
    eviction_seconds: float | None = None
    force_delete_on_dead_nodes: bool = True
    orphan_pods_seconds: float = 40.0
    terminated_pods_kept: int = 12500
    gc_period: float = 20.0
