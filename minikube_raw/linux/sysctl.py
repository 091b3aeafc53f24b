"""Kernel parameters under /proc/sys; those below net/ are the calling thread's network namespace's."""

from __future__ import annotations

from . import steps

# what lets a host pass packets on, by address family (AF_INET, AF_INET6)
FORWARDING = {2: "net/ipv4/ip_forward", 10: "net/ipv6/conf/all/forwarding"}


def read(name: str) -> str:
    """The value of a parameter such as "net/ipv4/ip_forward"; raises OSError when the kernel has none of that name."""
    with open(f"/proc/sys/{name}", encoding="ascii") as file:
        return file.read().strip()


def ensure(name: str, value: str) -> bool:
    """Sets a parameter unless it has that value; says whether it had to. Raises OSError when it cannot."""
    if read(name) == value:
        return False
    with steps.step("sysctl", f"{name}={value}"), open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
        file.write(value)
    return True
