"""Which CPUs share a core, a socket and a NUMA node, and which of the free ones a container gets for itself.

The order is the kubelet's packed one (pkg/kubelet/cm/cpumanager/cpu_assignment.go): whole sockets while one fits, whole cores
while one fits, then single CPUs of the cores and sockets that have the least left, so that large pieces stay whole.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

SYSTEM = Path("/sys/devices/system/cpu")
NONE, STATIC = "none", "static"
POLICIES = (NONE, STATIC)  # of the CPU manager
WHOLE_CORES, BY_SOCKET, STRICT = "full-pcpus-only", "align-by-socket", "strict-cpu-reservation"
OPTIONS = (WHOLE_CORES, BY_SOCKET, STRICT)  # of the static policy
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
CPUs = frozenset[int]


class CPU(msgspec.Struct, frozen=True, order=True):
    """A CPU by the kernel's numbers; a core's number is unique only within its socket. `node` is its NUMA node."""

    socket: int
    core: int
    number: int
    node: int = 0


def read(root: Path = SYSTEM) -> tuple[CPU, ...]:
    """The CPUs that this process may run on. A kernel that tells no topology has one core for each."""
    return tuple(sorted(_read(root, number) for number in os.sched_getaffinity(0)))


def _read(root: Path, number: int) -> CPU:
    def told(name: str, default: int) -> int:
        try:
            return max(int((root / f"cpu{number}/topology/{name}").read_text()), 0)
        except OSError:
            return default

    nodes = [int(path.name[len("node") :]) for path in (root / f"cpu{number}").glob("node[0-9]*")]
    return CPU(told("physical_package_id", 0), told("core_id", number), number, min(nodes, default=0))


def take(topology: Iterable[CPU], free: CPUs, count: int, preferred: CPUs = frozenset()) -> CPUs:
    """`count` of the free CPUs, those of `preferred` if they will do. Raises ValueError when there are too few."""
    if count > len(free):
        raise ValueError(_too_few(count, len(free)))
    if len(preferred) == count and preferred <= free:
        return preferred
    chosen: set[int] = set()
    cpus = tuple(topology)
    for level in _levels(cpus):
        for group in _whole_groups(cpus, free, level):
            if not group & chosen and len(chosen) + len(group) <= count:
                chosen |= group
    chosen |= set(_singles(cpus, free - chosen)[: count - len(chosen)])
    return frozenset(chosen)


def take_near(topology: Sequence[CPU], free: CPUs, count: int, nodes: frozenset[int] | None) -> CPUs:
    """As `take`, those of some NUMA nodes before all others. Raises ValueError when there are too few."""
    near = free & {cpu.number for cpu in topology if nodes is None or cpu.node in nodes}
    chosen = take(topology, near, min(count, len(near)))
    if len(free) < count:
        raise ValueError(_too_few(count, len(free)))
    return chosen | take(topology, free - chosen, count - len(chosen))


def _levels(cpus: Sequence[CPU]) -> tuple[Callable[[CPU], tuple[int, ...]], ...]:
    """The pieces of a machine, the larger ones first: a socket has several NUMA nodes, or a node several sockets."""
    nodes, sockets = len({cpu.node for cpu in cpus}), len({cpu.socket for cpu in cpus})
    return (_node, _socket, _core) if sockets >= nodes else (_socket, _node, _core)


def _node(cpu: CPU) -> tuple[int, ...]:
    return (cpu.node,)


def _socket(cpu: CPU) -> tuple[int, ...]:
    return (cpu.socket,)


def _core(cpu: CPU) -> tuple[int, ...]:
    return (cpu.socket, cpu.core)


def _whole_groups(cpus: tuple[CPU, ...], free: CPUs, level: Callable[[CPU], tuple[int, ...]]) -> list[CPUs]:
    """The groups of a level that are free as a whole; first those in the socket, and the node, with the least left."""
    groups: dict[tuple[int, ...], list[CPU]] = {}
    for cpu in cpus:
        groups.setdefault(level(cpu), []).append(cpu)
    sockets, nodes = _left(cpus, free, _socket), _left(cpus, free, _node)
    whole = [
        (sockets[_socket(group[0])], nodes[_node(group[0])], name, frozenset(cpu.number for cpu in group))
        for name, group in groups.items()
        if all(cpu.number in free for cpu in group)
    ]
    return [group for _, _, _, group in sorted(whole, key=lambda each: each[:3])]


def _singles(cpus: tuple[CPU, ...], free: CPUs) -> list[int]:
    left = [(level, _left(cpus, free, level)) for level in (_socket, _node, _core)]
    ordered = sorted(cpus, key=lambda cpu: (*(found[level(cpu)] for level, found in left), cpu))
    return [cpu.number for cpu in ordered if cpu.number in free]


def _left(cpus: tuple[CPU, ...], free: CPUs, level: Callable[[CPU], tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    left: dict[tuple[int, ...], int] = {}
    for cpu in cpus:
        left[level(cpu)] = left.get(level(cpu), 0) + (cpu.number in free)
    return left


def _too_few(count: int, free: int) -> str:
    return f"not enough cpus available to satisfy request: requested={count}, available={free}"


def parse(text: str) -> CPUs:
    """Read a list as cpuset(7) has it, "0-2,7". Raises ValueError."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        asked = _RANGE.fullmatch(part)
        if asked is None or int(asked[2] or asked[1]) < int(asked[1]):
            raise ValueError(f"invalid list of CPUs {text!r}")
        found.update(range(int(asked[1]), int(asked[2] or asked[1]) + 1))
    return frozenset(found)


def show(cpus: CPUs) -> str:
    """Write a list as cpuset(7) has it."""
    parts: list[str] = []
    ordered = sorted(cpus)
    while ordered:
        run = next((i for i in range(1, len(ordered)) if ordered[i] != ordered[0] + i), len(ordered))
        parts.append(str(ordered[0]) if run == 1 else f"{ordered[0]}-{ordered[run - 1]}")
        ordered = ordered[run:]
    return ",".join(parts)


def siblings(topology: Sequence[CPU], cpus: CPUs) -> CPUs:
    """These CPUs and those that share a core with one of them."""
    cores = {_core(cpu) for cpu in topology if cpu.number in cpus}
    return frozenset(cpu.number for cpu in topology if _core(cpu) in cores)


def sockets_of(topology: Sequence[CPU], nodes: frozenset[int]) -> frozenset[int]:
    """The sockets that NUMA nodes are parts of."""
    return frozenset(cpu.socket for cpu in topology if cpu.node in nodes)


def threads(topology: Sequence[CPU]) -> int:
    """How many CPUs a core has."""
    return len(topology) // max(len({_core(cpu) for cpu in topology}), 1)


def chosen_options(given: Mapping[str, str]) -> frozenset[str]:
    """The options of the static policy that are on. Raises ValueError for what is none, and for values that are none."""
    for name, value in given.items():
        if name not in OPTIONS:
            raise ValueError(f"unsupported cpumanager option: {name!r} ({value}): it is one of {', '.join(OPTIONS)}")
        if value not in ("true", "false"):
            raise ValueError(f"bad value for option {name!r}: {value!r} is neither true nor false")
    return frozenset(name for name, value in given.items() if value == "true")


def check_by_socket(topology: Sequence[CPU], policy: str) -> None:
    """Refuse align-by-socket where sockets have no NUMA nodes of their own, or one node alone is wanted. Raises ValueError."""
    if policy == "single-numa-node":
        raise ValueError(f"topology manager policy {policy} is incompatible with the CPU manager's option {BY_SOCKET}")
    if len({cpu.socket for cpu in topology}) > len({cpu.node for cpu in topology}):
        raise ValueError(f"{BY_SOCKET} is not compatible with hardware that has more sockets than NUMA nodes")


def reserved_cpus(named: str, reserved: int, topology: Sequence[CPU]) -> CPUs:
    """The CPUs that nobody gets alone: those `named`, else as many of the first as thousandths of CPUs are reserved.

    Raises ValueError: the static policy must leave something for the node itself.
    """
    known = frozenset(cpu.number for cpu in topology)
    found = parse(named)
    if not named and 0 < reserved <= len(known) * 1000:
        found = take(topology, known, math.ceil(reserved / 1000))
    if not found:
        raise ValueError("the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero")
    if not found <= known:
        raise ValueError(f"reserved CPUs {show(found - known)} are not among {show(known)}")
    return found
