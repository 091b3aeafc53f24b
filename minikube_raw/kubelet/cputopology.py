"""Which CPUs of the machine share a core, a cache, a socket and a NUMA node, and lists of CPUs as the kernel writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

SYSTEM = Path("/sys/devices/system/cpu")
NONE, STATIC = "none", "static"
POLICIES = (NONE, STATIC)  # of the CPU manager
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
CPUs = frozenset[int]


class CPU(msgspec.Struct, frozen=True, order=True):
    """A CPU by the kernel's numbers. `core` is the lowest CPU of its core, `node` its NUMA node.

    `cache` is the lowest CPU that shares its last-level cache ("uncore cache"); -1: the machine tells of none.
    """

    socket: int
    core: int
    number: int
    node: int = 0
    cache: int = -1


def read(root: Path = SYSTEM) -> tuple[CPU, ...]:
    """The CPUs that this process may run on. A kernel that tells no topology has one core for each."""
    return tuple(sorted(_read(root / f"cpu{number}", number) for number in os.sched_getaffinity(0)))


def _read(directory: Path, number: int) -> CPU:
    socket = max(int(_text(directory / "topology/physical_package_id") or 0), 0)
    core = min(parse(_text(directory / "topology/thread_siblings_list")), default=number)
    nodes = [int(path.name[len("node") :]) for path in directory.glob("node[0-9]*")]
    return CPU(socket, core, number, min(nodes, default=0), _cache(directory))


def _cache(directory: Path) -> int:
    """The first CPU of those that share the third level's cache; source: Documentation/ABI/testing/sysfs-devices-system-cpu."""
    third = (path for path in directory.glob("cache/index[0-9]*") if _text(path / "level") == "3")
    return min((min(parse(_text(path / "shared_cpu_list")), default=-1) for path in third), default=-1)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


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


def core_of(cpu: CPU) -> tuple[int, int]:
    """What names a core on the machine."""
    return cpu.socket, cpu.core


def siblings(topology: Sequence[CPU], cpus: CPUs) -> CPUs:
    """These CPUs and those that share a core with one of them."""
    cores = {core_of(cpu) for cpu in topology if cpu.number in cpus}
    return frozenset(cpu.number for cpu in topology if core_of(cpu) in cores)


def sockets_of(topology: Sequence[CPU], nodes: frozenset[int]) -> frozenset[int]:
    """The sockets that NUMA nodes are parts of."""
    return frozenset(cpu.socket for cpu in topology if cpu.node in nodes)


def threads(topology: Sequence[CPU]) -> int:
    """How many CPUs a core has."""
    return len(topology) // max(len({core_of(cpu) for cpu in topology}), 1)
