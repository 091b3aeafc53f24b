"""Background processes that the host starts: the master and each node's machine. Started, recorded, found again, ended.

A record is (boot id, pid, start time), never a bare pid: a number that was given to a stranger after a reboot or a wrap
of the pid counter is not signalled (runtime notes, proc_pid_stat(5) field 22).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from select import poll

import msgspec

from minikube_raw.linux import pidfd
from minikube_raw.linux.durability import write_file


class ProcessRecord(msgspec.Struct, frozen=True):
    """Which process a record speaks of. start_time is in clock ticks since boot."""

    boot_id: str
    pid: int
    start_time: int


def spawn(argv: list[str], log: Path, record: Path) -> int:
    """Start a program in a session of its own with its output in `log`, and record it; return its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, close_fds=True
        )
    remember(child.pid, record)
    child.returncode = 0  # it is meant to outlive us: say so to Popen, which otherwise warns
    return child.pid


def remember(pid: int, record: Path) -> None:
    """Write down who `pid` is."""
    boot_id, pid, start_time = pidfd.process_identity(pid)
    record.parent.mkdir(parents=True, exist_ok=True)
    write_file(record, msgspec.json.encode(ProcessRecord(boot_id, pid, start_time)))


def find(record: Path) -> int | None:
    """Return the recorded process' pid if that very process still runs; unreadable records count as none."""
    try:
        known = msgspec.json.decode(record.read_bytes(), type=ProcessRecord)
        alive = tuple(pidfd.process_identity(known.pid)) == (known.boot_id, known.pid, known.start_time)
    except (OSError, msgspec.MsgspecError):
        return None
    return known.pid if alive and not _zombie(known.pid) else None


def end(record: Path, *, grace: float) -> None:
    """End the recorded process: SIGTERM, SIGKILL after `grace` seconds, and forget it. None there is fine."""
    pid = find(record)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                if find(record) == pid:
                    _terminate(fd, grace)
            finally:
                os.close(fd)
    record.unlink(missing_ok=True)


def writing_to(log: Path) -> list[int]:
    """Pids of the processes whose output is `log`, as spawn() makes it: who runs though no record says so."""
    found: list[int] = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if os.path.samefile(directory / "fd/1", log):
                found.append(int(directory.name))
    return found


def end_all_writing_to(log: Path, *, grace: float) -> None:
    """End the processes whose output is `log`: SIGTERM, SIGKILL after `grace` seconds."""
    for pid in writing_to(log):
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                if pid in writing_to(log):  # and not somebody else of its number by now
                    _terminate(fd, grace)
            finally:
                os.close(fd)


def _terminate(fd: int, grace: float) -> None:
    ended = poll()
    ended.register(fd)
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        signal.pidfd_send_signal(fd, number)
        if ended.poll(patience * 1000):
            return
    raise TimeoutError("a process did not end within 10 s of SIGKILL: it is in uninterruptible sleep")


def _zombie(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat[stat.rindex(")") + 2] == "Z"
