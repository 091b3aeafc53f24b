"""Freezing, killing and waiting for a cgroup's processes: in the unified hierarchy if there is one, else by freezer.

A container is gone when its cgroup is empty, not when its first process is. Processes are signalled through pidfds
that are checked against the cgroup again after they were opened, so a number used anew is never hit.
"""

from __future__ import annotations

import os
import select
from time import monotonic

from minikube_raw.linux import features
from minikube_raw.linux.pidfd import has_ended, send_signal
from minikube_raw.linux.signals import SIGKILL

from . import control_files as files
from .directories import children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Lifecycle(Protocol):
        """The verbs that both hierarchies' directories have."""

        directory: str

        def freeze(self, frozen: bool, timeout: float) -> bool:
            """Stops or resumes all processes; False if some are not stopped in time."""
            ...

        def populated(self) -> bool:
            """Says whether a process lives here or below."""
            ...

        def wait_empty(self, timeout: float) -> bool:
            """Waits until no process is left; False if the time is over first."""
            ...

        def kill_all(self, timeout: float) -> bool:
            """Kills all processes, forks in flight included, and waits; False if some survive the time."""
            ...


class Unified:
    """A directory of the unified hierarchy: cgroup.freeze, cgroup.kill, cgroup.events."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def freeze(self, frozen: bool, timeout: float) -> bool:
        """cgroup.freeze."""
        files.write(f"{self.directory}/cgroup.freeze", int(frozen))
        return self._wait_for("frozen", int(frozen), timeout)

    def populated(self) -> bool:
        """cgroup.events."""
        return bool(files.read_flat(f"{self.directory}/cgroup.events").get("populated"))

    def wait_empty(self, timeout: float) -> bool:
        """Waits for the event that the kernel sends when the last process leaves."""
        return self._wait_for("populated", 0, timeout)

    def kill_all(self, timeout: float) -> bool:
        """cgroup.kill; without it (Linux < 5.14) freeze, SIGKILL to each, thaw, until empty."""
        if not features.cgroup_kill():
            return _kill_frozen(self, timeout)
        if not files.write_if_present(f"{self.directory}/cgroup.kill", 1):
            return True
        return self.wait_empty(timeout)

    def _wait_for(self, key: str, value: int, timeout: float) -> bool:
        try:
            events = os.open(f"{self.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            return _poll_events(events, f"{key} {value}", monotonic() + timeout)
        finally:
            os.close(events)


def _poll_events(events: int, wanted: str, deadline: float) -> bool:
    poll = select.poll()
    poll.register(events, select.POLLPRI)
    while True:
        try:
            lines = os.pread(events, 4096, 0).decode().splitlines()
        except OSError:  # ENODEV: the cgroup was removed, so nothing is in it
            return True
        if wanted in lines:
            return True
        left = deadline - monotonic()
        if left <= 0:
            return False
        poll.poll(left * 1000)


class Freezer:
    """A directory of a v1 hierarchy, the freezer's where there is one."""

    def __init__(self, directory: str, *, can_freeze: bool) -> None:
        self.directory = directory
        self._can_freeze = can_freeze

    def freeze(self, frozen: bool, timeout: float) -> bool:
        """freezer.state; FREEZING becomes FROZEN once the last process has come to rest, which no event tells."""
        if not self._can_freeze:
            return False
        wanted = "FROZEN" if frozen else "THAWED"
        deadline = monotonic() + timeout
        pause = select.poll()
        while True:
            files.write(f"{self.directory}/freezer.state", wanted)  # written again: a fork may have slipped through
            if files.read(f"{self.directory}/freezer.state") == wanted:
                return True
            if monotonic() >= deadline:
                return False
            pause.poll(1)

    def populated(self) -> bool:
        """Processes here or below."""
        return bool(processes(self.directory))

    def wait_empty(self, timeout: float) -> bool:
        """Waits for each process's end in turn; v1 has no event for the last one."""
        deadline = monotonic() + timeout
        while pidfds := _open_processes(self.directory):
            try:
                ended = [has_ended(pidfd, max(deadline - monotonic(), 0)) for pidfd in pidfds]
            finally:
                _close(pidfds)
            if not all(ended) and monotonic() >= deadline:
                return False
        return True

    def kill_all(self, timeout: float) -> bool:
        """Freeze, SIGKILL to each, thaw, until empty."""
        return _kill_frozen(self, timeout)


def _kill_frozen(cgroup: Unified | Freezer, timeout: float) -> bool:
    """Kills what forks faster than one can list it: nothing forks while frozen, and a thawed process dies first."""
    deadline = monotonic() + timeout
    while True:
        if not os.path.isdir(cgroup.directory):
            return True
        cgroup.freeze(True, min(timeout, 0.5))
        pidfds = _open_processes(cgroup.directory)
        try:
            for pidfd in pidfds:
                send_signal(pidfd, SIGKILL)
        finally:
            _close(pidfds)
            cgroup.freeze(False, min(timeout, 0.5))
        if cgroup.wait_empty(min(max(deadline - monotonic(), 0), 0.1)):
            return True
        if monotonic() >= deadline:
            return False


def processes(directory: str) -> list[int]:
    """Returns the processes in a cgroup directory and all below it."""
    pids = files.read_pids(directory)
    for child in children(directory):
        pids += processes(f"{directory}/{child}")
    return pids


def _open_processes(directory: str) -> list[int]:
    """Returns pidfds of the processes in the cgroup that were in it before and after they were opened."""
    opened: dict[int, int] = {}
    for pid in processes(directory):
        try:
            opened[pid] = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
    still = set(processes(directory)) if opened else set()
    _close([pidfd for pid, pidfd in opened.items() if pid not in still])
    return [pidfd for pid, pidfd in opened.items() if pid in still]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
