"""The NUMA nodes of a machine: memory, huge pages and distances of each, as sysfs tells them.

A kernel without NUMA has one node with everything. Source: Documentation/ABI/stable/sysfs-devices-node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from minikube_raw.kubelet import node
from minikube_raw.kubelet.cputopology import parse

SYSTEM = Path("/sys/devices/system/node")
Nodes = frozenset[int]


class NUMANode(msgspec.Struct, frozen=True):
    """One node by the kernel's number: bytes by resource ("memory" with the huge pages in it), and how far others are."""

    number: int
    memory: Mapping[str, int]
    distances: Mapping[int, int] = {}  # by the other's number; the kernel's unit, 10 is itself


def read(root: Path = SYSTEM) -> tuple[NUMANode, ...]:
    """The nodes that are online, by number."""
    try:
        numbers = sorted(parse((root / "online").read_text()))
    except OSError:
        return (NUMANode(0, {"memory": psutil.virtual_memory().total}, {0: 10}),)
    return tuple(_read(root / f"node{number}", number, numbers) for number in numbers)


def _read(directory: Path, number: int, online: Sequence[int]) -> NUMANode:
    words = (line.split() for line in (directory / "meminfo").read_text().splitlines())
    total = next(int(each[3]) << 10 for each in words if each[2] == "MemTotal:")
    pages = {
        f"hugepages-{size}": amount for size, amount in sorted(node.read_hugepages(directory / "hugepages").items())
    }
    distances = map(int, (directory / "distance").read_text().split())
    return NUMANode(number, {"memory": total, **pages}, dict(zip(online, distances, strict=True)))


def narrowness(nodes: Nodes) -> tuple[int, int]:
    """What sorts sets of nodes as a kubelet does: first those with fewer nodes, then those with lower numbers."""
    return len(nodes), sum(1 << number for number in nodes)
