"""Resource limits under the names OCI gives them (RLIMIT_NOFILE), cut to what this process may set.

Without CAP_SYS_RESOURCE a hard limit can only be lowered: set_limits() then sets what is possible and says what it cut.
"""

from __future__ import annotations

import resource

from . import steps

NUMBERS: dict[str, int] = {name: value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
INFINITY = resource.RLIM_INFINITY


def get_limit(name: str, pid: int = 0) -> tuple[int, int]:
    """Returns (soft, hard) of a process, ours by default; -1 is unlimited."""
    return resource.prlimit(pid, NUMBERS[name])


def set_limits(limits: dict[str, tuple[int, int]], pid: int = 0) -> list[str]:
    """Sets {name: (soft, hard)}; returns the names whose hard limit had to stay below what was asked.

    An unknown name is a ValueError, a soft limit above its hard limit too.
    """
    lowered = []
    for name, (soft, hard) in limits.items():
        if name not in NUMBERS:
            raise ValueError(f"unknown resource limit {name}")
        began = steps.begin()
        if not _set(name, soft, hard, pid):
            lowered.append(name)
        steps.end(began, "prlimit", f"{name}={soft}:{hard}")
    return lowered


def _set(name: str, soft: int, hard: int, pid: int) -> bool:
    try:
        resource.prlimit(pid, NUMBERS[name], (soft, hard))
    except PermissionError:
        allowed = get_limit(name, pid)[1]
        resource.prlimit(pid, NUMBERS[name], (_lower(soft, allowed), allowed))
        return False
    return True


def _lower(soft: int, hard: int) -> int:
    if hard == INFINITY:
        return soft
    return hard if soft == INFINITY else min(soft, hard)


def raise_open_files() -> None:
    """Raises this process's soft limit of open files to its hard limit."""
    hard = get_limit("RLIMIT_NOFILE")[1]
    set_limits({"RLIMIT_NOFILE": (hard, hard)})
