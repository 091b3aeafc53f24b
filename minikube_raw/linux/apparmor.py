"""AppArmor: whether the host has it, and the profile that the next exec changes to (apparmor_lsm, proc(5) attr/exec).

Written through descriptors that cannot leave the container's own procfs: a write that lands in another file of it would be
the write of root (CVE-2025-52881).
"""

from __future__ import annotations

import os

from . import paths

_ENABLED = "/sys/module/apparmor/parameters/enabled"


def is_enabled() -> bool:
    """Says whether the kernel enforces AppArmor profiles."""
    try:
        with open(_ENABLED, "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


def change_on_exec(profile: str) -> None:
    """Makes the calling process's next exec change to a loaded profile. Raises OSError when there is none of that name."""
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    resolve = paths.RESOLVE_NO_SYMLINKS | paths.RESOLVE_NO_XDEV | paths.RESOLVE_BENEATH
    try:
        attribute = paths.openat2(proc, f"{os.getpid()}/attr/apparmor/exec", os.O_WRONLY, resolve=resolve)
    finally:
        os.close(proc)
    try:
        os.write(attribute, f"exec {profile}".encode())
    finally:
        os.close(attribute)
