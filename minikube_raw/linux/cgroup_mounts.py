"""Where this host's cgroup hierarchies are mounted, and which of the three layouts that makes: v2, v1 or hybrid.

Read once from mountinfo. A hybrid host has controllers on v1 hierarchies and, beside them, a unified one with few
controllers or none, which still freezes, kills and tells when a cgroup is empty.
"""

from __future__ import annotations

# Hierarchies a container gets a directory in; others (net_cls, perf_event, name=systemd) are left as they are.
V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb")


class Hierarchies:
    """Mount points: `v1` by controller (co-mounted ones share a path), and `unified` (or None) with its controllers."""

    __slots__ = ("unified", "unified_controllers", "v1")

    def __init__(
        self, v1: dict[str, str], unified: str | None = None, unified_controllers: frozenset[str] = frozenset()
    ) -> None:
        self.v1 = v1
        self.unified = unified
        self.unified_controllers = unified_controllers

    @property
    def mode(self) -> str:
        """Returns "v2", "hybrid" or "v1"; FileNotFoundError if no hierarchy is mounted."""
        if not self.v1 and self.unified is None:
            raise FileNotFoundError("no cgroup hierarchy is mounted")
        if not self.v1:
            return "v2"
        return "v1" if self.unified is None else "hybrid"

    def roots(self) -> list[str]:
        """Returns every mount point once, the unified one first."""
        unified = [self.unified] if self.unified is not None else []
        return [*unified, *dict.fromkeys(self.v1.values())]


_found: Hierarchies | None = None


def hierarchies() -> Hierarchies:
    """Returns this mount namespace's hierarchies, found at the first call and remembered (across fork too)."""
    global _found
    if _found is None:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mountinfo:
            _found = parse_mountinfo(mountinfo.read())
        if _found.unified is not None:
            _found.unified_controllers = _read_controllers(_found.unified)
    return _found


def forget() -> None:
    """Forgets what hierarchies() found, for a process that changed its mounts."""
    global _found
    _found = None


def parse_mountinfo(text: str) -> Hierarchies:
    """Returns the hierarchies in a mountinfo (proc_pid_mountinfo(5)); the first mount of each counts."""
    v1: dict[str, str] = {}
    unified: str | None = None
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        mount_point = left.split(" ")[4]
        fstype, _, super_options = right.split(" ", 2)
        if fstype == "cgroup2" and unified is None:
            unified = mount_point
        elif fstype == "cgroup":
            for option in super_options.split(","):
                if option in V1_CONTROLLERS:
                    v1.setdefault(option, mount_point)
    return Hierarchies(v1, unified)


def _read_controllers(unified: str) -> frozenset[str]:
    with open(f"{unified}/cgroup.controllers", encoding="ascii") as file:
        return frozenset(file.read().split())
