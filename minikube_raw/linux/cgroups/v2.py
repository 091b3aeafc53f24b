"""Limits and figures of a cgroup in v2's files (Documentation/admin-guide/cgroup-v2.rst), one function per controller.

The same functions as in v1.py; a setter returns the names of limits that v2 has no counterpart for.
"""

from __future__ import annotations

import errno

from . import control_files as files
from . import oom
from .values import CPU_PERIOD_US, Transfers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .values import Limits, Stats

_LEAST_SHARES = 2
_MOST_SHARES = 262_144


def weight(shares: int) -> int:
    """Returns cpu.weight (1 to 10,000) for v1 shares, linearly as the kubelet maps them: 1,024 shares become 39."""
    shares = min(max(shares, _LEAST_SHARES), _MOST_SHARES)
    return 1 + (shares - _LEAST_SHARES) * 9999 // (_MOST_SHARES - _LEAST_SHARES)


def set_cpu(directory: str, limits: Limits) -> list[str]:
    """cpu.weight, cpu.max ("QUOTA PERIOD"; what is not given stays)."""
    if limits.cpu_shares is not None:
        files.write(f"{directory}/cpu.weight", weight(limits.cpu_shares))
    if limits.cpu_quota is not None or limits.cpu_period is not None:
        files.write(f"{directory}/cpu.max", _cpu_max(directory, limits.cpu_quota, limits.cpu_period))
    return []


def _cpu_max(directory: str, quota: int | None, period: int | None) -> str:
    if quota is None or period is None:
        old_quota, _, old_period = files.read(f"{directory}/cpu.max").partition(" ")
    else:
        old_quota, old_period = "max", str(CPU_PERIOD_US)
    new_quota = old_quota if quota is None else str(quota) if quota > 0 else "max"
    return f"{new_quota} {period or old_period}"


def set_cpuset(directory: str, limits: Limits) -> list[str]:
    """cpuset.cpus, cpuset.mems; empty takes the parent's."""
    if limits.cpuset_cpus is not None:
        files.write(f"{directory}/cpuset.cpus", limits.cpuset_cpus)
    if limits.cpuset_mems is not None:
        files.write(f"{directory}/cpuset.mems", limits.cpuset_mems)
    return []


def set_memory(directory: str, limits: Limits) -> list[str]:
    """memory.max, memory.swap.max (absent without swap), memory.min, memory.low, memory.high, memory.oom.group."""
    if limits.memory_limit is not None:
        files.write(f"{directory}/memory.max", _or_max(limits.memory_limit))
    if limits.memory_limit is not None or limits.swap_limit is not None:
        swap = limits.swap_limit or 0
        unlimited = swap < 0 or (limits.memory_limit is not None and limits.memory_limit <= 0)
        files.write_if_present(f"{directory}/memory.swap.max", "max" if unlimited else swap)
    if limits.memory_min is not None:
        files.write(f"{directory}/memory.min", max(limits.memory_min, 0))
    if limits.memory_low is not None:
        files.write(f"{directory}/memory.low", max(limits.memory_low, 0))
    if limits.memory_high is not None:
        files.write(f"{directory}/memory.high", _or_max(limits.memory_high))
    if limits.oom_group is not None:
        files.write(f"{directory}/memory.oom.group", int(limits.oom_group))
    return []


def set_pids(directory: str, limits: Limits) -> list[str]:
    """pids.max."""
    if limits.pids_limit is not None:
        files.write(f"{directory}/pids.max", _or_max(limits.pids_limit))
    return []


def _or_max(value: int) -> str:
    return str(value) if value > 0 else "max"


def set_hugetlb(directory: str, limits: Limits) -> list[str]:
    """hugetlb.SIZE.max and, since Linux 5.7, the same for reservations; named if the kernel has no such pages."""
    wanted = limits.hugetlb or ()
    for size, amount in wanted:
        files.write_if_present(f"{directory}/hugetlb.{size}.rsvd.max", amount)
    written = [files.write_if_present(f"{directory}/hugetlb.{size}.max", amount) for size, amount in wanted]
    return [] if all(written) else ["hugetlb"]


def read_cpu(directory: str, stats: Stats) -> None:
    """cpu.stat, in µs, and cpu.max."""
    detail = files.read_flat(f"{directory}/cpu.stat")
    stats.cpu_usage_ns = detail.get("usage_usec", 0) * 1000
    stats.cpu_throttled_ns = detail.get("throttled_usec", 0) * 1000
    stats.cpu_periods, stats.cpu_throttled_periods = detail.get("nr_periods"), detail.get("nr_throttled")
    stats.cpu_limit = _read_cpu_limit(f"{directory}/cpu.max")


def _read_cpu_limit(path: str) -> float | None:
    """Reads "max 100000" or "50000 100000"; the root has no such file."""
    try:
        quota, _, period = files.read(path).partition(" ")
    except FileNotFoundError:
        return None
    return int(quota) / int(period) if quota.isdigit() else None


def read_memory(directory: str, stats: Stats) -> None:
    """memory.current, memory.peak (Linux ≥ 5.19), memory.stat, memory.max, memory.events.local."""
    usage = files.read_number(f"{directory}/memory.current", 0) or 0
    detail = files.read_flat(f"{directory}/memory.stat")
    stats.memory_usage = usage
    stats.memory_peak = files.read_number(f"{directory}/memory.peak")
    stats.memory_working_set = max(usage - detail.get("inactive_file", 0), 0)
    stats.memory_rss, stats.memory_cache = detail.get("anon"), detail.get("file")
    stats.page_faults, stats.page_faults_major = detail.get("pgfault"), detail.get("pgmajfault")
    stats.swap_usage = files.read_number(f"{directory}/memory.swap.current")
    stats.swap_limit = files.read_number(f"{directory}/memory.swap.max")
    stats.memory_limit = files.read_number(f"{directory}/memory.max")
    stats.oom_kills = oom.kills(oom_file(directory))


def oom_file(directory: str) -> str:
    """Returns the file that says how often the kernel killed in this cgroup alone."""
    return f"{directory}/memory.events.local"


def read_pids(directory: str, stats: Stats) -> None:
    """pids.current."""
    stats.pids = files.read_number(f"{directory}/pids.current", 0)


def read_io(directory: str, stats: Stats) -> None:
    """io.stat: "254:0 rbytes=4096 wbytes=0 rios=1 wios=0 …" lines."""
    transfers: dict[str, Transfers] = {}
    for line in files.read_if_present(f"{directory}/io.stat").splitlines():
        device, *counts = line.split()
        told = dict(count.split("=", 1) for count in counts)
        numbers = (int(told.get(name, 0)) for name in ("rbytes", "wbytes", "rios", "wios"))
        transfers[device] = Transfers(*numbers)
    stats.transfers = transfers


def enable_controllers(directory: str, controllers: Iterable[str]) -> None:
    """Makes controllers available to the children of `directory`.

    OSError EBUSY: a process lives in that directory itself, which v2 forbids once its children have controllers.
    """
    missing = sorted(set(controllers) - set(files.read(f"{directory}/cgroup.subtree_control").split()))
    if not missing:
        return
    try:
        files.write(f"{directory}/cgroup.subtree_control", " ".join(f"+{name}" for name in missing))
    except OSError as error:
        if error.errno == errno.EBUSY:
            text = "a cgroup with processes of its own cannot hand controllers down; move them into a leaf"
            raise OSError(errno.EBUSY, text, directory) from None
        raise


SETTERS: dict[str, Callable[[str, Limits], list[str]]] = {
    "cpu": set_cpu,
    "cpuset": set_cpuset,
    "memory": set_memory,
    "pids": set_pids,
    "hugetlb": set_hugetlb,
}
READERS: dict[str, Callable[[str, Stats], None]] = {
    "cpu": read_cpu,
    "memory": read_memory,
    "pids": read_pids,
    "io": read_io,
}
