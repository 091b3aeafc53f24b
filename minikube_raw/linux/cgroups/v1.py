"""Limits and figures of a cgroup in v1's files (Documentation/admin-guide/cgroup-v1), one function per controller.

Each setter returns the names of limits that v1 has no counterpart for; v2.py has the same functions.
"""

from __future__ import annotations

import errno
import os

from . import control_files as files
from . import oom
from .values import Transfers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .values import Limits, Stats

UNLIMITED = -1
# What memory.limit_in_bytes says without a limit: the highest page counter, whatever the page size (≥ 2^62).
_NO_LIMIT_FROM = 1 << 62
_BLKIO = {
    "blkio.throttle.io_service_bytes_recursive": {"Read": "read_bytes", "Write": "write_bytes"},
    "blkio.throttle.io_serviced_recursive": {"Read": "reads", "Write": "writes"},
}


def set_cpu(directory: str, limits: Limits) -> list[str]:
    """cpu.shares, cpu.cfs_period_us, cpu.cfs_quota_us."""
    if limits.cpu_shares is not None:
        files.write(f"{directory}/cpu.shares", max(limits.cpu_shares, 2))
    period = f"{directory}/cpu.cfs_period_us"
    if limits.cpu_period is not None and files.read_number(period) != limits.cpu_period:  # writing walks all cgroups
        files.write(period, limits.cpu_period)
    if limits.cpu_quota is not None:
        files.write(f"{directory}/cpu.cfs_quota_us", limits.cpu_quota if limits.cpu_quota > 0 else UNLIMITED)
    return []


def set_cpuset(directory: str, limits: Limits) -> list[str]:
    """cpuset.cpus, cpuset.mems."""
    if limits.cpuset_cpus is not None:
        files.write(f"{directory}/cpuset.cpus", limits.cpuset_cpus)
    if limits.cpuset_mems is not None:
        files.write(f"{directory}/cpuset.mems", limits.cpuset_mems)
    return []


def set_memory(directory: str, limits: Limits) -> list[str]:
    """memory.limit_in_bytes, memory.memsw.limit_in_bytes (memory and swap; absent without swap accounting)."""
    if limits.memory_limit is not None:
        _set_memory_and_swap(directory, limits.memory_limit, limits.swap_limit or 0)
    return [name for name in ("memory_min", "memory_low", "memory_high", "oom_group") if getattr(limits, name)]


def _set_memory_and_swap(directory: str, memory: int, swap: int) -> None:
    """The sum must never be below the memory limit: lowering begins with memory, raising with the sum."""
    memory_file, sum_file = f"{directory}/memory.limit_in_bytes", f"{directory}/memory.memsw.limit_in_bytes"
    memory = memory if memory > 0 else UNLIMITED
    both = memory + swap if memory > 0 and swap >= 0 else UNLIMITED
    try:
        files.write(memory_file, memory)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        files.write_if_present(sum_file, both)
        files.write(memory_file, memory)
    else:
        files.write_if_present(sum_file, both)


def set_pids(directory: str, limits: Limits) -> list[str]:
    """pids.max."""
    if limits.pids_limit is not None:
        files.write(f"{directory}/pids.max", limits.pids_limit if limits.pids_limit > 0 else "max")
    return []


def set_hugetlb(directory: str, limits: Limits) -> list[str]:
    """hugetlb.SIZE.limit_in_bytes and, since Linux 5.7, the same for reservations; named if the kernel has no such pages."""
    wanted = limits.hugetlb or ()
    for size, amount in wanted:
        files.write_if_present(f"{directory}/hugetlb.{size}.rsvd.limit_in_bytes", amount)
    written = [files.write_if_present(f"{directory}/hugetlb.{size}.limit_in_bytes", amount) for size, amount in wanted]
    return [] if all(written) else ["hugetlb"]


def read_cpu(directory: str, stats: Stats) -> None:
    """cpu.stat has the throttled time, cpu.cfs_quota_us the limit; use is counted by cpuacct."""
    detail = files.read_flat(f"{directory}/cpu.stat")
    stats.cpu_throttled_ns = detail.get("throttled_time")
    stats.cpu_periods, stats.cpu_throttled_periods = detail.get("nr_periods"), detail.get("nr_throttled")
    quota = files.read_number(f"{directory}/cpu.cfs_quota_us")
    period = files.read_number(f"{directory}/cpu.cfs_period_us")
    stats.cpu_limit = quota / period if quota is not None and quota > 0 and period else None


def read_cpuacct(directory: str, stats: Stats) -> None:
    """cpuacct.usage."""
    stats.cpu_usage_ns = files.read_number(f"{directory}/cpuacct.usage")


def read_memory(directory: str, stats: Stats) -> None:
    """memory.usage_in_bytes, memory.max_usage_in_bytes, memory.stat, memory.oom_control."""
    usage = files.read_number(f"{directory}/memory.usage_in_bytes") or 0
    detail = files.read_flat(f"{directory}/memory.stat")
    limit = files.read_number(f"{directory}/memory.limit_in_bytes")
    stats.memory_usage = usage
    stats.memory_peak = files.read_number(f"{directory}/memory.max_usage_in_bytes")
    stats.memory_working_set = max(usage - detail.get("total_inactive_file", 0), 0)
    stats.memory_rss, stats.memory_cache = detail.get("total_rss"), detail.get("total_cache")
    stats.page_faults, stats.page_faults_major = detail.get("total_pgfault"), detail.get("total_pgmajfault")
    stats.swap_usage = detail.get("total_swap")
    stats.memory_limit = limit if limit is not None and limit < _NO_LIMIT_FROM else None
    both = files.read_number(f"{directory}/memory.memsw.limit_in_bytes")
    stats.swap_limit = max(both - (limit or 0), 0) if both is not None and both < _NO_LIMIT_FROM else None
    stats.oom_kills = oom.kills(oom_file(directory))


def oom_file(directory: str) -> str:
    """Returns the file that says how often the kernel killed in this cgroup."""
    return f"{directory}/memory.oom_control"


def read_pids(directory: str, stats: Stats) -> None:
    """pids.current."""
    stats.pids = files.read_number(f"{directory}/pids.current", 0)


def read_blkio(directory: str, stats: Stats) -> None:
    """blkio.throttle.io_service_bytes_recursive and io_serviced_recursive: "254:0 Read 4096" lines.

    Writes through the page cache are not in them, and Linux 6.10 and newer count nothing before a device has some limit.
    """
    transfers: dict[str, Transfers] = {}
    for name, fields in _BLKIO.items():
        for line in files.read_if_present(f"{directory}/{name}").splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in fields:
                setattr(transfers.setdefault(words[0], Transfers()), fields[words[1]], int(words[2]))
    stats.transfers = transfers


def inherit_cpuset(directory: str, root: str) -> None:
    """Copies the parent's CPUs and memory nodes: a v1 cpuset starts empty and then nobody can be attached to it.

    From then on the kernel does so for what is made below (cgroup.clone_children, which is inherited): each write of a set
    makes it look at all cpusets of the host, 0.5 ms with a thousand of them.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(f"{directory}/{name}"):
            parent = os.path.dirname(directory)
            value = files.read(f"{parent}/{name}")
            if not value and parent != root:  # another process is just making the parent
                inherit_cpuset(parent, root)
                value = files.read(f"{parent}/{name}")
            files.write(f"{directory}/{name}", value)
            files.write(f"{directory}/cgroup.clone_children", 1)


SETTERS: dict[str, Callable[[str, Limits], list[str]]] = {
    "cpu": set_cpu,
    "cpuset": set_cpuset,
    "memory": set_memory,
    "pids": set_pids,
    "hugetlb": set_hugetlb,
}
READERS: dict[str, Callable[[str, Stats], None]] = {
    "cpu": read_cpu,
    "cpuacct": read_cpuacct,
    "memory": read_memory,
    "pids": read_pids,
    "blkio": read_blkio,
}
