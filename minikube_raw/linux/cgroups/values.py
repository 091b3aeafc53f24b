"""What goes into a cgroup and what is read from it, in the kernel's units: plain classes, cheap to import."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CPU_PERIOD_US = 100_000
_SHARES_PER_CPU = 1024


class _Values:
    """Slots with equality and a readable form; dataclasses would cost every container's start 10 ms of import."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.as_dict().values()))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.as_dict().items() if value is not None)
        return f"{type(self).__name__}({given})"

    def as_dict(self) -> dict[str, object]:
        """Returns the fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Limits(_Values):
    """Limits of one cgroup. None leaves what is there; 0 or less lifts the limit (pids, memory, swap < 0, CPU quota).

    cpu_shares is v1's scale (2 to 262,144; v2's weight follows from it); cpu_quota is µs per cpu_period µs; memory and
    swap are bytes, swap beyond memory, and 0 swap unless said otherwise wherever memory is limited (without a memory
    limit it is written on v2 only); cpusets are lists as in cpuset(7); memory_min, memory_low, memory_high and oom_group exist
    on v2 only; hugetlb is bytes by page size as the kernel names it ("2MB"), 0 being a limit of its own there.
    """

    __slots__ = (
        "cpu_period",
        "cpu_quota",
        "cpu_shares",
        "cpuset_cpus",
        "cpuset_mems",
        "hugetlb",
        "memory_high",
        "memory_limit",
        "memory_low",
        "memory_min",
        "oom_group",
        "pids_limit",
        "swap_limit",
    )

    def __init__(
        self,
        *,
        cpu_shares: int | None = None,
        cpu_quota: int | None = None,
        cpu_period: int | None = None,
        cpuset_cpus: str | None = None,
        cpuset_mems: str | None = None,
        memory_limit: int | None = None,
        swap_limit: int | None = None,
        memory_min: int | None = None,
        memory_low: int | None = None,
        memory_high: int | None = None,
        oom_group: bool | None = None,
        pids_limit: int | None = None,
        hugetlb: Mapping[str, int] | None = None,
    ) -> None:
        self.cpu_shares = cpu_shares
        self.cpu_quota = cpu_quota
        self.cpu_period = cpu_period
        self.cpuset_cpus = cpuset_cpus
        self.cpuset_mems = cpuset_mems
        self.memory_limit = memory_limit
        self.swap_limit = swap_limit
        self.memory_min = memory_min
        self.memory_low = memory_low
        self.memory_high = memory_high
        self.oom_group = oom_group
        self.pids_limit = pids_limit
        self.hugetlb = None if hugetlb is None else tuple(sorted(hugetlb.items()))

    @classmethod
    def for_node(cls, *, cpus: float | None = None, memory: int | None = None) -> Limits:
        """Returns the limits of a whole node: CPUs as quota and as shares, memory in bytes; None is all of the host's."""
        if cpus is None:
            return cls(memory_limit=memory)
        quota = int(cpus * CPU_PERIOD_US)
        return cls(
            cpu_shares=int(cpus * _SHARES_PER_CPU), cpu_quota=quota, cpu_period=CPU_PERIOD_US, memory_limit=memory
        )


class Stats(_Values):
    """Use of one cgroup and those below it; None where no controller counts it. CPU in ns, memory in bytes.

    cpu_limit is the quota in CPUs, None without one; cpu_throttled_periods of cpu_periods ran into it.
    memory_working_set is use without inactive file cache, what the kubelet compares with eviction thresholds;
    memory_peak is the highest use so far; memory_limit and swap_limit (swap alone) are None without one.
    oom_kills counts this cgroup alone.
    transfers are by block device ("254:0").
    """

    __slots__ = (
        "cpu_limit",
        "cpu_periods",
        "cpu_throttled_ns",
        "cpu_throttled_periods",
        "cpu_usage_ns",
        "memory_cache",
        "memory_limit",
        "memory_peak",
        "memory_rss",
        "memory_usage",
        "memory_working_set",
        "oom_kills",
        "page_faults",
        "page_faults_major",
        "pids",
        "swap_limit",
        "swap_usage",
        "transfers",
    )

    def __init__(self) -> None:
        self.cpu_usage_ns: int | None = None
        self.cpu_throttled_ns: int | None = None
        self.cpu_periods: int | None = None
        self.cpu_throttled_periods: int | None = None
        self.cpu_limit: float | None = None
        self.memory_cache: int | None = None
        self.memory_usage: int | None = None
        self.memory_peak: int | None = None
        self.memory_working_set: int | None = None
        self.memory_rss: int | None = None
        self.memory_limit: int | None = None
        self.oom_kills: int | None = None
        self.page_faults: int | None = None
        self.page_faults_major: int | None = None
        self.pids: int | None = None
        self.swap_usage: int | None = None
        self.swap_limit: int | None = None
        self.transfers: dict[str, Transfers] | None = None


class Transfers(_Values):
    """What went from and to one block device: bytes and requests."""

    __slots__ = ("read_bytes", "reads", "write_bytes", "writes")

    def __init__(self, read_bytes: int = 0, write_bytes: int = 0, reads: int = 0, writes: int = 0) -> None:
        self.read_bytes = read_bytes
        self.write_bytes = write_bytes
        self.reads = reads
        self.writes = writes


class Pressure(_Values):
    """One line of a PSI file: percentages of the last 10, 60 and 300 seconds, and the total in µs."""

    __slots__ = ("avg10", "avg60", "avg300", "total_us")

    def __init__(self, avg10: float, avg60: float, avg300: float, total_us: int) -> None:
        self.avg10 = avg10
        self.avg60 = avg60
        self.avg300 = avg300
        self.total_us = total_us
