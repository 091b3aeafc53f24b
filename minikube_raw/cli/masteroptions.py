"""What a master is told when it starts; a module of its own because `up` writes it without importing a master."""

from __future__ import annotations

import msgspec


class MasterOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Paths, the addresses it listens on, the cluster's networks, and how patient it is with nodes (seconds)."""

    store: str
    pki: str
    addresses: tuple[str, ...]
    port: int = 6443
    pod_cidr: str = "10.244.0.0/16"
    service_cidr: str = "10.96.0.0/12"
    node_monitor_grace: float = 40.0
    eviction_after: float | None = None
