"""Which CPUs share a core, a socket and a NUMA node, and which of the free ones a container gets for itself.

The order is the kubelet's packed one (pkg/kubelet/cm/cpumanager/cpu_assignment.go): whole sockets while one fits, whole cores
while one fits, then single CPUs of the cores and sockets that have the least left, so that large pieces stay whole.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

SYSTEM = Path("/sys/devices/system/cpu")
NONE, STATIC = "none", "static"
POLICIES = (NONE, STATIC)  # of the CPU manager
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
CPUs = frozenset[int]


class CPU(msgspec.Struct, frozen=True, order=True):
    """A CPU by the kernel's numbers; a core's number is unique only within its socket."""

    socket: int
    core: int
    number: int


def read(root: Path = SYSTEM) -> tuple[CPU, ...]:
    """The CPUs that this process may run on. A kernel that tells no topology has one core for each."""
    return tuple(sorted(_read(root, number) for number in os.sched_getaffinity(0)))


def _read(root: Path, number: int) -> CPU:
    def told(name: str, default: int) -> int:
        try:
            return max(int((root / f"cpu{number}/topology/{name}").read_text()), 0)
        except OSError:
            return default

    return CPU(told("physical_package_id", 0), told("core_id", number), number)


def take(topology: Iterable[CPU], free: CPUs, count: int, preferred: CPUs = frozenset()) -> CPUs:
    """`count` of the free CPUs, those of `preferred` if they will do. Raises ValueError when there are too few."""
    if count > len(free):
        raise ValueError(f"not enough cpus available to satisfy request: requested={count}, available={len(free)}")
    if len(preferred) == count and preferred <= free:
        return preferred
    chosen: set[int] = set()
    cpus = tuple(topology)
    for level in (_socket, _core):
        for group in _whole_groups(cpus, free, level):
            if not group & chosen and len(chosen) + len(group) <= count:
                chosen |= group
    chosen |= set(_singles(cpus, free - chosen)[: count - len(chosen)])
    return frozenset(chosen)


def _socket(cpu: CPU) -> tuple[int, ...]:
    return (cpu.socket,)


def _core(cpu: CPU) -> tuple[int, ...]:
    return (cpu.socket, cpu.core)


def _whole_groups(cpus: tuple[CPU, ...], free: CPUs, level: Callable[[CPU], tuple[int, ...]]) -> list[CPUs]:
    """The groups of a level that are free as a whole; first those in the socket with the least left."""
    groups: dict[tuple[int, ...], set[int]] = {}
    for cpu in cpus:
        groups.setdefault(level(cpu), set()).add(cpu.number)
    left = _left(cpus, free, _socket)
    whole = [(left[name[:1]], name, frozenset(group)) for name, group in groups.items() if group <= free]
    return [group for _, _, group in sorted(whole, key=lambda each: each[:2])]


def _singles(cpus: tuple[CPU, ...], free: CPUs) -> list[int]:
    sockets, cores = _left(cpus, free, _socket), _left(cpus, free, _core)
    ordered = sorted((sockets[_socket(cpu)], cores[_core(cpu)], cpu) for cpu in cpus if cpu.number in free)
    return [cpu.number for _, _, cpu in ordered]


def _left(cpus: tuple[CPU, ...], free: CPUs, level: Callable[[CPU], tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    left: dict[tuple[int, ...], int] = {}
    for cpu in cpus:
        left[level(cpu)] = left.get(level(cpu), 0) + (cpu.number in free)
    return left


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
