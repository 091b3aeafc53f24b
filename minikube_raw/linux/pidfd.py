"""Processes held by descriptor: opened only if they are the ones a record means, signalled, and asked how they ended.

PIDs are used again within hours; a process in a record is therefore (boot id, pid, start time), and a pidfd opened by
number is trusted only when all of it matches afterwards. Nothing here signals by number.
"""

from __future__ import annotations

import errno
import os
import select

from . import features
from .pidfd_calls import pidfd_exit_status, pidfd_send_signal

_boot_id = ""


def boot_id() -> str:
    """Returns the id of this boot; read once, since it cannot change under us."""
    global _boot_id
    if not _boot_id:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            _boot_id = file.read().strip()
    return _boot_id


def start_time(pid: int) -> int:
    """Returns when a process started, in clock ticks since boot (proc_pid_stat(5)); ProcessLookupError if gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), str(pid)) from None
    return int(stat[stat.rindex(b")") + 2 :].split(None, 20)[19])  # the name before ")" may hold blanks and brackets


def process_identity(pid: int) -> tuple[str, int, int]:
    """Returns (boot id, pid, start time): what a record keeps to find this very process again."""
    return boot_id(), pid, start_time(pid)


def open_process(pid: int, started: int | None = None, boot: str | None = None) -> int:
    """Opens a pidfd, only if the process is of boot `boot` and started at `started` (both as process_identity() says).

    Raises ProcessLookupError when it is gone or when another process has its number. Closed on exec.
    """
    if boot is not None and boot != boot_id():
        raise ProcessLookupError(errno.ESRCH, "the process belongs to an earlier boot", str(pid))
    pidfd = os.pidfd_open(pid)
    try:
        # Compared after opening: while the pidfd is held the process it means cannot be replaced behind our back.
        if started is not None and start_time(pid) != started:
            raise ProcessLookupError(errno.ESRCH, "another process has this pid now", str(pid))
    except BaseException:
        os.close(pidfd)
        raise
    return pidfd


def send_signal(pidfd: int, signal: int) -> bool:
    """Sends a signal; returns False when the process has ended (a zombie counts as ended once it is reaped)."""
    try:
        pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        return False
    return True


def pid_of(pidfd: int) -> int:
    """Returns the number of the process in our PID namespace; -1 when it has ended and is reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))


def has_ended(pidfd: int, timeout: float = 0) -> bool:
    """Says whether the process has ended, waiting up to `timeout` seconds for it (without end if negative)."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000 if timeout >= 0 else None))


def reap(pidfd: int) -> tuple[int, int]:
    """Waits for a child of ours; returns (exit code, signal), one of them 0. ChildProcessError if it is not ours."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None  # only WNOHANG returns nothing
    return (result.si_status, 0) if result.si_code == os.CLD_EXITED else (0, result.si_status)


def exit_info(pidfd: int) -> int | None:
    """Returns the wait status (see os.waitstatus_to_exitcode) of a reaped process, our child or not; None if unknown.

    Unknown before it is reaped, and always on kernels before 6.15.
    """
    return pidfd_exit_status(pidfd) if features.pidfd_info_exit() else None
