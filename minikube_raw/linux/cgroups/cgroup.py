"""One cgroup in all hierarchies at once: the verbs that callers use, dispatched by controller to v1.py or v2.py.

On a hybrid host the limits live in v1's directories while freezing, killing and "is it empty" use the unified one.
Every verb may be repeated, and removing what is gone is fine.
"""

from __future__ import annotations

import errno
import os
from time import monotonic, sleep

from minikube_raw.linux import features

from . import control_files as files
from . import devices, directories, oom, v1, v2
from .lifecycle import Freezer, Unified, processes
from .values import Pressure, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from minikube_raw.linux.cgroup_mounts import Hierarchies

    from .devices import DeviceRule
    from .lifecycle import Lifecycle
    from .values import Limits

    class Version(Protocol):
        """What v1.py and v2.py both have."""

        SETTERS: dict[str, Callable[[str, Limits], list[str]]]
        READERS: dict[str, Callable[[str, Stats], None]]

        @property
        def oom_file(self) -> Callable[[str], str]:
            """Returns what names the file with the counter of this cgroup alone."""
            ...


_LIMITED_BY = {
    "cpu": "cpu_",
    "cpuset": "cpuset_",
    "memory": "memory_ swap_ oom_",
    "pids": "pids_",
    "hugetlb": "hugetlb",
}


class _Home:
    """A controller's directory, and the module that knows the files in it."""

    __slots__ = ("directory", "version")

    def __init__(self, directory: str, version: Version) -> None:
        self.directory = directory
        self.version = version


class Cgroup:
    """A cgroup by its path below the hierarchies' roots; the object holds names only, no descriptor and no state."""

    def __init__(self, path: str, hierarchies: Hierarchies) -> None:
        self.path = path.strip("/")
        if not self.path or any(part in ("", ".", "..") for part in self.path.split("/")):
            raise ValueError(f"not a cgroup path: {path!r}")
        self._hierarchies = hierarchies
        self._roots = hierarchies.roots()
        if not self._roots:
            raise FileNotFoundError(errno.ENOENT, "no cgroup hierarchy is mounted", path)

    def __repr__(self) -> str:
        return f"Cgroup({self.path!r})"

    # Where it is

    @property
    def directories(self) -> list[str]:
        """Its directory in each hierarchy, the unified one first."""
        return [f"{root}/{self.path}" for root in self._roots]

    @property
    def _unified(self) -> str | None:
        root = self._hierarchies.unified
        return None if root is None else f"{root}/{self.path}"

    def child(self, name: str) -> Cgroup:
        """Returns the cgroup `name` below this one."""
        return Cgroup(f"{self.path}/{name}", self._hierarchies)

    def children(self) -> list[str]:
        """Returns the names of the cgroups directly below it, in any hierarchy."""
        return sorted({name for directory in self.directories for name in directories.children(directory)})

    def exists(self) -> bool:
        """Says whether it exists in every hierarchy."""
        return all(os.path.isdir(directory) for directory in self.directories)

    def open_unified(self) -> int | None:
        """Opens its unified directory for namespaces.clone_child(cgroup_fd=…); None on a pure v1 host. Closed on exec."""
        if self._unified is None:
            return None
        return os.open(self._unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    # Being there

    def create(self) -> None:
        """Makes it and its missing parents in every hierarchy, ready to be joined."""
        cpuset = self._hierarchies.v1.get("cpuset")
        for root in self._roots:
            directory = f"{root}/{self.path}"
            directories.make(directory, root)
            if root == cpuset:  # also where it existed: a crash may have left it empty
                v1.inherit_cpuset(directory, root)
        self._enable_controllers()

    def _enable_controllers(self) -> None:
        """On v2, hands each controller down from the root to this cgroup's parent; then only leaves may have processes.

        None is handed down that is not needed: on hybrid hosts the unified hierarchy may offer hugetlb alone, which is
        not worth forbidding processes in all but its leaves.
        """
        useful = {*_LIMITED_BY, "io"}  # which only counts
        wanted = self._hierarchies.unified_controllers.intersection(useful) - self._hierarchies.v1.keys()
        if self._hierarchies.v1:
            wanted -= {"hugetlb", "io"}
        directory = self._hierarchies.unified
        if not wanted or directory is None:
            return
        if wanted.issubset(files.read(f"{directory}/{self.path}/cgroup.controllers").split()):
            return
        for name in self.path.split("/"):
            v2.enable_controllers(directory, wanted)
            directory = f"{directory}/{name}"

    def attach(self, pid: int) -> None:
        """Moves a process into it in every hierarchy; 0 is the caller. ProcessLookupError if it has ended.

        The caller moves itself far faster than anybody can move it, if it has one thread and was cloned into the
        unified directory (open_unified()): writing to cgroup.procs takes a lock of the whole host that waits for an
        RCU grace period, 6 ms on a calm machine; a thread that writes 0 to v1's tasks takes none, 0.03 ms each.
        """
        alone = pid == 0 and os.stat("/proc/self/task").st_nlink == 3  # ".", ".." and one thread
        for directory in self.directories:
            if directory == self._unified:
                if not (alone and _is_in_unified(self.path)):
                    files.write(f"{directory}/cgroup.procs", pid)
            else:
                files.write(f"{directory}/{'tasks' if alone else 'cgroup.procs'}", pid)

    def procs(self, *, recursive: bool = False) -> list[int]:
        """Returns the processes in it (and below), as numbered in the caller's PID namespace."""
        directory = self._lifecycle.directory
        return sorted(set(processes(directory) if recursive else files.read_pids(directory)))

    def remove(self, timeout: float = 2.0) -> None:
        """Removes it and all below it, waiting for processes that are just ending; OSError EBUSY if some live on."""
        deadline = monotonic() + timeout
        for directory in self.directories:
            self._remove_tree(directory, deadline)

    def _remove_tree(self, directory: str, deadline: float) -> None:
        for name in () if directories.remove(directory) else directories.children(directory):
            self._remove_tree(f"{directory}/{name}", deadline)
        while not directories.remove(directory):
            left = deadline - monotonic()
            if left <= 0:
                raise OSError(errno.EBUSY, f"cgroup still has processes {files.read_pids(directory)}", directory)
            # A process stays in its cgroup for a moment after its end was reported, and no event says when rmdir works.
            self._lifecycle.wait_empty(min(left, 0.005))
            sleep(0.001)

    # Limits and figures

    def set_limits(self, limits: Limits) -> list[str]:
        """Writes the limits that are given; returns the names of those that this host cannot enforce.

        OSError EBUSY: the memory in use is above the limit and cannot be reclaimed. EINVAL: a value the kernel refuses.
        """
        not_enforced: list[str] = []
        for controller, prefixes in _LIMITED_BY.items():
            given = [name for name, value in limits.as_dict().items() if value is not None and _has(name, prefixes)]
            if not given:
                continue
            home = self._home(controller)
            if home is None:
                not_enforced += given
            else:
                not_enforced += home.version.SETTERS[controller](home.directory, limits)
        return not_enforced

    def stats(self) -> Stats:
        """Reads its figures; those that no controller counts are None. FileNotFoundError if it is gone."""
        stats = Stats()
        for controller in ("cpu", "cpuacct", "memory", "pids", "blkio", "io"):
            home = self._home(controller)
            if home is not None and controller in home.version.READERS:
                home.version.READERS[controller](home.directory, stats)
        return stats

    def oom_kills(self) -> int:
        """Returns how many processes in this cgroup (not below it) the kernel killed for want of memory."""
        path = self.oom_file()
        return oom.kills(path) if path else 0

    def oom_file(self) -> str:
        """Returns the file in which oom.kills() finds that; empty when memory is not accounted here."""
        home = self._home("memory")
        return "" if home is None else home.version.oom_file(home.directory)

    def pressure(self, resource: str) -> dict[str, Pressure]:
        """Returns the PSI of "cpu", "memory" or "io" as {"some": …, "full": …}; empty where the kernel does not tell."""
        if self._unified is None or not features.psi():
            return {}
        try:
            text = files.read(f"{self._unified}/{resource}.pressure")
        except OSError:  # gone, or EOPNOTSUPP: switched off for this cgroup (cgroup.pressure)
            return {}
        return {line.split()[0]: _pressure(line) for line in text.splitlines()}

    def _home(self, controller: str) -> _Home | None:
        """Returns where a controller of this cgroup is found, None if this host has it not."""
        root = self._hierarchies.v1.get(controller)
        if root is not None:
            return _Home(f"{root}/{self.path}", v1)
        if self._unified is not None and controller in self._hierarchies.unified_controllers:
            return _Home(self._unified, v2)
        return None

    # Devices

    def set_devices(self, allowed: Sequence[DeviceRule]) -> None:
        """Lets the processes use these devices and no others; a second call replaces the first.

        On v1 by devices.deny and devices.allow (which, as always there, must not allow what the parent denies), else
        by an eBPF programme on the unified directory. NotImplementedError where a host has neither.
        """
        if "devices" in self._hierarchies.v1:
            devices.write_v1(f"{self._hierarchies.v1['devices']}/{self.path}", allowed)
        elif self._unified is not None:
            devices.attach_programme(self._unified, allowed)
        else:
            raise NotImplementedError("this host has no devices controller and no unified hierarchy")

    def allow_devices(self, more: Sequence[DeviceRule], besides: Sequence[DeviceRule]) -> None:
        """Lets the processes use `more` devices; `besides` is what set_devices() was given. Nothing is refused meanwhile."""
        if "devices" in self._hierarchies.v1:
            devices.allow_v1(f"{self._hierarchies.v1['devices']}/{self.path}", more)
        else:
            self.set_devices([*besides, *more])

    # Stopping

    @property
    def _lifecycle(self) -> Lifecycle:
        if self._unified is not None:
            return Unified(self._unified)
        freezer = self._hierarchies.v1.get("freezer")
        return Freezer(f"{freezer or self._roots[0]}/{self.path}", can_freeze=freezer is not None)

    def freeze(self, timeout: float = 2.0) -> bool:
        """Stops every process in it and below; False if some have not come to rest in time (they still will)."""
        return self._lifecycle.freeze(True, timeout)

    def thaw(self, timeout: float = 2.0) -> bool:
        """Undoes freeze()."""
        return self._lifecycle.freeze(False, timeout)

    def empty(self) -> bool:
        """Says whether no process is in it or below; a cgroup that is gone is empty."""
        return not self._lifecycle.populated()

    def wait_empty(self, timeout: float) -> bool:
        """Waits until it is empty; False if the time (seconds) is over first."""
        return self._lifecycle.wait_empty(timeout)

    def kill_all(self, timeout: float = 10.0) -> bool:
        """Kills every process in it and below, forks in flight too, and waits until it is empty; False if time is over."""
        return self._lifecycle.kill_all(timeout)


def _has(name: str, prefixes: str) -> bool:
    return any(name.startswith(prefix) for prefix in prefixes.split())


def _is_in_unified(path: str) -> bool:
    """Says whether the calling process is in the unified cgroup; False too when a cgroup namespace hides where it is."""
    return f"0::/{path}" in files.read("/proc/self/cgroup").splitlines()


def _pressure(line: str) -> Pressure:
    """Parses "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" (Documentation/accounting/psi.rst)."""
    values = dict(pair.split("=") for pair in line.split()[1:])
    return Pressure(float(values["avg10"]), float(values["avg60"]), float(values["avg300"]), int(values["total"]))
