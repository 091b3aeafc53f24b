"""Control groups behind one short list of verbs, the same on v2, v1 and hybrid hosts; callers never ask which it is.

`manager("minikube-raw/demo/node1/kubepods/pod…")` names a cgroup below the root of every hierarchy. Files are written
directly: nothing here walks the host's tree, so no verb costs more on a host with more cgroups.
"""

from __future__ import annotations

from minikube_raw.linux.cgroup_mounts import Hierarchies, hierarchies

from .cgroup import Cgroup
from .devices import DEFAULT_DEVICES, DeviceRule
from .values import Limits, Pressure, Stats, Transfers

__all__ = [
    "DEFAULT_DEVICES",
    "Cgroup",
    "DeviceRule",
    "Hierarchies",
    "Limits",
    "Pressure",
    "Stats",
    "Transfers",
    "detect",
    "manager",
]


def detect() -> str:
    """Returns how this host mounts cgroups: "v2", "v1" or "hybrid" (controllers on v1 beside a unified hierarchy)."""
    return hierarchies().mode


def manager(path: str) -> Cgroup:
    """Returns the cgroup at `path` below the hierarchies' roots; nothing is made yet. ValueError if it leads outside."""
    return Cgroup(path, hierarchies())
