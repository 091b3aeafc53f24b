"""Capabilities by name and number, and the five sets of a process (capabilities(7)).

Sets are Python ints used as bit masks, one bit per capability number. What a container is given by default is DEFAULT;
what it can be given at all is what this process's bounding set still holds.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_ulong, c_void_p

from . import steps
from .syscalls import bind, bind_syscall, checked, raise_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ALL = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
# containerd's default (pkg/oci/spec.go, defaultUnixCaps), Docker's too.
_DEFAULT = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
AUDIT_WRITE
"""
NAMES: tuple[str, ...] = tuple(f"CAP_{name}" for name in _ALL.split())
NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES)}
DEFAULT: tuple[str, ...] = tuple(f"CAP_{name}" for name in _DEFAULT.split())

PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


class cap_header(ctypes.Structure):
    """cap_user_header_t of capset(2)."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class cap_data(ctypes.Structure):
    """cap_user_data_t of capset(2); two of them, low word first."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_capset = bind_syscall("capset", c_void_p, c_void_p)
_prctl = bind("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)


def mask(names: Iterable[str]) -> int:
    """Returns the bit mask of capabilities named with or without CAP_, in any case; "ALL" means every one.

    Raises ValueError for a name that does not exist.
    """
    bits = 0
    for name in names:
        upper = name.upper()
        if upper in ("ALL", "CAP_ALL"):
            bits |= (1 << len(NAMES)) - 1
            continue
        number = NUMBERS.get(upper if upper.startswith("CAP_") else f"CAP_{upper}")
        if number is None:
            raise ValueError(f"unknown capability {name}")
        bits |= 1 << number
    return bits


def names(bits: int) -> list[str]:
    """Returns the names in a mask, by number; bits that have no name here are left out."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def container_set(add: Iterable[str] = (), drop: Iterable[str] = (), *, privileged: bool = False) -> int:
    """Returns what a container asked for: DEFAULT (all if privileged) plus `add` minus `drop`, as containerd does.

    drop: ALL empties the default, and what add: ALL gave, before the others are added: drop ALL + add X means X alone.
    """
    added, dropped = list(add), [name.upper().removeprefix("CAP_") for name in drop]
    start = mask(["ALL"]) if privileged else mask(DEFAULT)
    if "ALL" in dropped:
        one_by_one = mask(name for name in added if name.upper() not in ("ALL", "CAP_ALL"))
        return one_by_one & ~mask(name for name in dropped if name != "ALL")
    return (start | mask(added)) & ~mask(dropped)


def available() -> int:
    """Returns our bounding set: the most that a process started by us can ever have."""
    bits = 0
    for number in range(64):
        answer = _prctl(PR_CAPBSET_READ, number, 0, 0, 0)
        if answer < 0:  # EINVAL: the kernel has no capability of this number
            break
        bits |= answer << number
    return bits


def drop_bounding(keep: int) -> None:
    """Drops every capability that is not in `keep` from the bounding set of this thread; needs CAP_SETPCAP."""
    held = available()
    for number in range(held.bit_length()):
        if held >> number & 1 and not keep >> number & 1:
            checked("prctl", f"PR_CAPBSET_DROP {_name(number)}", _prctl, PR_CAPBSET_DROP, number, 0, 0, 0)


def clear_ambient() -> None:
    """Empties the ambient set."""
    checked("prctl", "PR_CAP_AMBIENT_CLEAR_ALL", _prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def _sets(effective: int, permitted: int, inheritable: int) -> ctypes.Array[cap_data]:
    data = (cap_data * 2)()
    for word, shift in ((data[0], 0), (data[1], 32)):
        word.effective, word.permitted = effective >> shift & 0xFFFFFFFF, permitted >> shift & 0xFFFFFFFF
        word.inheritable = inheritable >> shift & 0xFFFFFFFF
    return data


def set_sets(effective: int, permitted: int, inheritable: int = 0) -> None:
    """capset(2) for the calling thread."""
    data = _sets(effective, permitted, inheritable)
    header = cap_header(_LINUX_CAPABILITY_VERSION_3, 0)
    step = (effective, permitted, inheritable)
    checked("capset", f"{effective:x}", _capset, ctypes.addressof(header), ctypes.addressof(data), step=step)


def prepared(bits: int) -> Callable[[], None]:
    """Returns a call that leaves this thread `bits` in effective and permitted and nothing inheritable.

    For the moment after the last steps were told: its own is recorded now.
    """
    data = _sets(bits, bits, 0)
    header = cap_header(_LINUX_CAPABILITY_VERSION_3, 0)
    steps.end(steps.begin(), "capset", (bits, bits, 0))

    def apply_now() -> None:
        if _capset(ctypes.addressof(header), ctypes.addressof(data)) < 0:
            raise_errno("capset", f"{bits:x}")

    return apply_now


def apply(bits: int) -> None:
    """Leaves this thread exactly `bits` in effective and permitted, and nothing inheritable or ambient.

    The last step before exec, after drop_bounding() and setuid: inheritable capabilities are empty on purpose
    (CVE-2022-29162), so a program run by another user than root starts with none, as under containerd.
    """
    clear_ambient()
    set_sets(bits, bits, 0)


def _name(number: int) -> str:
    return NAMES[number] if number < len(NAMES) else str(number)
