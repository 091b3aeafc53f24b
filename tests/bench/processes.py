"""What processes cost, by their pids as the host sees them."""

from __future__ import annotations

from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Time on a CPU of a process's threads that live, to the nanosecond: /proc/PID/stat counts in hundredths of a second."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def pss(pid: int) -> int:
    """Proportional set size in bytes."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
