"""AppArmor: whether the host has it, and the profile that the next exec changes to (apparmor_lsm, proc(5) attr/exec).

Written through procfs.py, since /proc may be one that a container has arranged.
"""

from __future__ import annotations

import os

from . import procfs

_ENABLED = "/sys/module/apparmor/parameters/enabled"
_PROFILES = "/sys/kernel/security/apparmor/profiles"


def is_enabled() -> bool:
    """Says whether the kernel enforces AppArmor profiles."""
    try:
        with open(_ENABLED, "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


def is_loaded(profile: str) -> bool:
    """Says whether the kernel has a profile of that name; False too where securityfs is not mounted."""
    try:
        with open(_PROFILES, encoding="utf-8", errors="replace") as file:
            return any(line.rpartition(" (")[0] == profile for line in file)
    except OSError:
        return False


def change_on_exec(profile: str) -> None:
    """Makes the calling process's next exec change to a loaded profile. Raises OSError when there is none of that name."""
    attribute = procfs.open_file(f"{os.getpid()}/attr/apparmor/exec", os.O_WRONLY)
    try:
        os.write(attribute, f"exec {profile}".encode())
    finally:
        os.close(attribute)
