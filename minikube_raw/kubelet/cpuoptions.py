"""The options of the static CPU policy (--cpu-manager-policy-options), and which of them cannot be together or on a machine.

Names and words are the kubelet's (pkg/kubelet/cm/cpumanager/policy_options.go); its feature gates are all on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minikube_raw.kubelet.cputopology import CPU

WHOLE_CORES = "full-pcpus-only"
ACROSS_NODES = "distribute-cpus-across-numa"
BY_SOCKET = "align-by-socket"
ACROSS_CORES = "distribute-cpus-across-cores"
STRICT = "strict-cpu-reservation"
BY_CACHE = "prefer-align-cpus-by-uncorecache"
OPTIONS = (WHOLE_CORES, ACROSS_NODES, BY_SOCKET, ACROSS_CORES, STRICT, BY_CACHE)
_APART = ((WHOLE_CORES, ACROSS_CORES), (ACROSS_NODES, ACROSS_CORES), (BY_CACHE, ACROSS_CORES), (BY_CACHE, ACROSS_NODES))


def chosen(given: Mapping[str, str]) -> frozenset[str]:
    """The options that are on. Raises ValueError for what is none, for values that are none, and for what cannot be together."""
    for name, value in given.items():
        if name not in OPTIONS:
            raise ValueError(f'unknown CPU Manager Policy option: "{name}": it is one of {", ".join(OPTIONS)}')
        if value not in ("true", "false"):
            raise ValueError(f'bad value for option "{name}": {value!r} is neither true nor false')
    found = frozenset(name for name, value in given.items() if value == "true")
    for one, other in _APART:
        if found >= {one, other}:
            raise ValueError(f"static policy options {one} and {other} can not be used at the same time")
    return found


def check_by_socket(topology: Sequence[CPU], policy: str) -> None:
    """Refuse align-by-socket where sockets have no NUMA nodes of their own, or one node alone is wanted. Raises ValueError."""
    if policy == "single-numa-node":
        raise ValueError(f"topology manager policy {policy} is incompatible with the CPU manager's option {BY_SOCKET}")
    if len({cpu.socket for cpu in topology}) > len({cpu.node for cpu in topology}):
        raise ValueError(f"{BY_SOCKET} is not compatible with hardware that has more sockets than NUMA nodes")
