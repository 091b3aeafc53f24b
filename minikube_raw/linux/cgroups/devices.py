"""Which device nodes a cgroup may use: by v1's devices controller, or by an eBPF programme on a unified directory.

Both give the same answers for the same list of rules (Documentation/admin-guide/cgroup-v1/devices.rst).
"""

from __future__ import annotations

import os

from minikube_raw.linux import steps

from . import control_files as files
from . import device_programme

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class DeviceRule:
    """What is allowed: `kind` "c" (character), "b" (block) or "a" (both), numbers (None is any), access of "rwm"."""

    __slots__ = ("access", "kind", "major", "minor")

    def __init__(self, kind: str, major: int | None = None, minor: int | None = None, access: str = "rwm") -> None:
        if kind not in ("a", "b", "c") or not access or not set(access) <= set("rwm"):
            raise ValueError(f"not a device rule: {kind!r} {access!r}")
        self.kind = kind
        self.major = major
        self.minor = minor
        self.access = access

    def __str__(self) -> str:
        major = "*" if self.major is None else self.major
        minor = "*" if self.minor is None else self.minor
        return f"{self.kind} {major}:{minor} {self.access}"


# What every container may do (runc, specconv.AllowedDevices): make any node, use the harmless and its terminals.
DEFAULT_DEVICES: tuple[DeviceRule, ...] = (
    DeviceRule("c", access="m"),
    DeviceRule("b", access="m"),
    DeviceRule("c", 1, 3),  # null
    DeviceRule("c", 1, 5),  # zero
    DeviceRule("c", 1, 7),  # full
    DeviceRule("c", 1, 8),  # random
    DeviceRule("c", 1, 9),  # urandom
    DeviceRule("c", 5, 0),  # tty
    DeviceRule("c", 5, 2),  # ptmx
    DeviceRule("c", 136),  # pts
)


def write_v1(directory: str, allowed: Sequence[DeviceRule]) -> None:
    """devices.deny everything, then devices.allow each rule."""
    files.write(f"{directory}/devices.deny", "a")
    allow_v1(directory, allowed)


def allow_v1(directory: str, allowed: Sequence[DeviceRule]) -> None:
    """devices.allow each rule."""
    for rule in allowed:
        files.write(f"{directory}/devices.allow", str(rule))


def attach_programme(directory: str, allowed: Sequence[DeviceRule]) -> None:
    """Attaches a new programme to a unified directory, then detaches those that were there."""
    began = steps.begin()
    cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        device_programme.replace(cgroup, device_programme.assemble(allowed))
    finally:
        os.close(cgroup)
        steps.end(began, "bpf", f"{directory} {len(allowed)} device rules")
