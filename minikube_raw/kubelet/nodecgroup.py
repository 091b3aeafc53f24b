"""The cgroup of all pods, kubepods: what the node reserves for others is kept from pods by the kernel, not by arithmetic alone.

pkg/kubelet/cm/node_container_manager_linux.go (enforceNodeAllocatable: pods). The classes' shares inside are classshares'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minikube_raw.kubelet import qos
from minikube_raw.kubelet.reserved import Amounts, pods_limit
from minikube_raw.linux.cgroups import Limits, manager

PODS = "kubepods"
UNLIMITED = -1
# Told as (type, reason, message) of an Event of the node.
Tell = Callable[[str, str, str], None]


def limits(capacity: Amounts, reserved: Sequence[Amounts], pids: int, *, swaps: bool = False) -> Limits:
    """The limits of all pods together; `pids` is the node's capacity of them, limited only where some are reserved.

    Without `swaps` none of them ever does.
    """
    reserves_pids = any("pid" in each for each in reserved)
    return Limits(
        cpu_shares=qos.cpu_shares(pods_limit(capacity, reserved, "cpu").milli()),
        memory_limit=pods_limit(capacity, reserved, "memory").value(),
        swap_limit=UNLIMITED if swaps else None,
        pids_limit=pods_limit({"pid": str(pids)}, reserved, "pid").value() if reserves_pids else None,
    )


def enforce(cgroup_root: str, wanted: Limits, tell: Tell) -> None:
    """Write the limits; repeatable. What is refused (memory in use is above the limit) is told, and tried at the next start."""
    try:
        group = manager(f"{cgroup_root}/{PODS}")
        group.create()
        group.set_limits(wanted)
    except OSError as error:
        message = f"Failed to update Node Allocatable Limits {PODS!r}: {error}"
        tell("Warning", "FailedNodeAllocatableEnforcement", message)
    else:
        tell("Normal", "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods")
